"""An import as the command line knows it: looked at, run, gone on with, and taken back."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
from sqlmodel import Session

from terrace.errors import Conflict, Invalid, Missing
from terrace.knowledge.generations import store as generation_rows
from terrace.moving.mongo_qdrant import finishing, fitting, settling, store
from terrace.moving.mongo_qdrant.base import Counts, Fit, Plan, Report
from terrace.moving.mongo_qdrant.house import House, Source
from terrace.moving.mongo_qdrant.mapping import Mapping
from terrace.moving.mongo_qdrant.preparing import Prepared, prepare
from terrace.moving.mongo_qdrant.reading import Reader
from terrace.moving.mongo_qdrant.staging import Staging, Whole
from terrace.moving.mongo_qdrant.tables import ImportRow
from terrace.moving.mongo_qdrant.verifying import Verifier
from terrace.moving.mongo_qdrant.writing import Writer
from terrace.moving.texts import tended
from terrace.types import Scope

CHUNKS = 400  # passages in one transaction, or one document where it has more
DOCUMENTS = 100

Progress = Callable[[str, int, int | None], None]


def _quiet(what: str, done: int, total: int | None) -> None:
    pass


class Imports:
    def __init__(self, house: House) -> None:
        self._house = house

    # -- looking

    async def plan(self, scope: Scope, source: Source, *, re_embed: bool = False, progress: Progress = _quiet) -> Plan:
        """A dry run: everything is read and looked through, nothing is written in Terrace."""
        folder = self._house.folder / "dry-run"
        await asyncio.to_thread(shutil.rmtree, folder, True)
        try:
            async with self._staged(folder, source, progress) as staging:
                return await self._planned(scope, source, staging, re_embed)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def every(self, scope: Scope) -> Sequence[ImportRow]:
        return await self._house.database.read(store.every, scope)

    async def details(self, scope: Scope, import_id: str) -> AsyncIterator[dict[str, Any]]:
        """Each document of the source: what became of it, and the metadata it had there."""
        await self._house.database.read(store.read, scope, import_id)
        after = ""
        while page := await self._house.database.read(store.page, scope, import_id, after, DOCUMENTS):
            for row in page:
                yield {
                    "source_id": row.source_id,
                    "document_id": row.document_id or None,
                    "chunks": row.chunks,
                    "vectors": row.vectors,
                    "note": row.note,
                    "metadata": row.details,
                }
            after = page[-1].source_id

    # -- bringing

    async def run(
        self,
        scope: Scope,
        source: Source,
        *,
        resume: bool = False,
        re_embed: bool = False,
        progress: Progress = _quiet,
        began: Callable[[str], None] = lambda import_id: None,
    ) -> Report:
        """Bring everything and verify it. `resume` goes on with the one that did not get to its end.

        Raises Conflict when there is such a one and `resume` was not said, Missing when there is none to go on with.
        """
        import_id = await self._begin(scope, source, resume)
        began(import_id)
        folder = self._house.folder / import_id
        async with self._staged(folder, source, progress) as staging:
            plan = await self._planned(scope, source, staging, re_embed)
            fit = await self._decided(scope, import_id, plan.fit)
            await self._bring(scope, import_id, fit, staging, plan.coming, progress)
            waiting = await finishing.finish(self._house, scope, import_id, fit)
            await tended(self._house.database, progress, scope.tenant)
            verifier = Verifier(self._house.database, self._house.blobs, self._house.index, staging)
            checks = await verifier.verify(scope, import_id, plan.coming, fit)
            state: Any = "verified" if all(check.good for check in checks) else "differs"
            came = await self._house.database.read(store.came, scope, import_id)
            report = Report(import_id, state, came, checks, plan.problems, fit, waiting)
            told = msgspec.to_builtins(asdict(report))
            await self._house.database.write(store.keep, scope, import_id, state=state, report=told)
        await asyncio.to_thread(shutil.rmtree, folder, True)
        return report

    async def rollback(self, scope: Scope, import_id: str, progress: Progress = _quiet) -> Report:
        """Take back what an import brought: its documents, its generation, the collections it made if they are empty.

        Stopped half-way it can be said again.
        """
        row = await self._house.database.read(store.read, scope, import_id)
        if row.state == "rolled_back":
            raise Conflict(f"{import_id} was taken back already.", code="import_rolled_back")
        gone = await finishing.take_back(self._house, scope, row, lambda done: progress("taken back", done, None))
        await asyncio.to_thread(shutil.rmtree, self._house.folder / import_id, True)
        return Report(import_id, "rolled_back", Counts(documents=gone))

    # -- steps

    async def _begin(self, scope: Scope, source: Source, resume: bool) -> str:
        def begin(session: Session) -> str:
            open_one = store.unfinished(session, scope, source.plan())
            if open_one and not resume:
                raise Conflict(
                    f"The import {open_one} of the same source has not got to its end. Go on with `--resume`, or take "
                    f"it back with `--rollback {open_one}`.",
                    code="import_unfinished",
                )
            if resume and not open_one:
                raise Missing("No import of this source and mapping is unfinished.", code="import_missing")
            told = {"mapping": source.mapping.model_dump(mode="json"), "places": source.places}
            return open_one or store.begin(session, scope, source.plan(), told)

        return await self._house.database.write(begin)

    @asynccontextmanager
    async def _staged(self, folder: Path, source: Source, progress: Progress) -> AsyncIterator[Staging]:
        """With everything read."""
        check_needs(source)
        staging = await asyncio.to_thread(Staging, folder / "staging.db")
        try:
            await Reader(source.mapping, source.documents, source.points, staging, progress).read()
            await asyncio.to_thread(settling.settle, staging, source.mapping)
            yield staging
        finally:
            await asyncio.to_thread(staging.close)

    async def _planned(self, scope: Scope, source: Source, staging: Staging, re_embed: bool) -> Plan:
        coming = await asyncio.to_thread(staging.counts)
        return Plan(
            found=await asyncio.to_thread(settling.found, staging),
            coming=coming,
            unread=await asyncio.to_thread(staging.unread),
            collections=await asyncio.to_thread(staging.collections),
            problems=await asyncio.to_thread(settling.problems, staging),
            fit=await self._fit(scope, source.mapping, staging, re_embed),
        )

    async def _fit(self, scope: Scope, mapping: Mapping, staging: Staging, re_embed: bool) -> Fit:
        widths = await asyncio.to_thread(staging.dimensions)
        if re_embed:
            return Fit("none", why="Embedding anew was asked for.")
        if not widths:
            return Fit("none", why="No vectors come along.")
        samples = await asyncio.to_thread(staging.sample, fitting.SAMPLES)
        rows = await self._house.database.read(generation_rows.every)
        known = [
            fitting.Candidate(
                row.setting, row.precision, self._house.generations.embedder_of(row), row.key, row.state == "serving"
            )
            for row in rows
        ]
        among = fitting.candidates(mapping, known, self._house.opener, self._house.configured)
        try:
            return await fitting.fit(samples, widths[0][0], among, scope)
        finally:
            for each in among[len(known) :]:
                await each.embedder.close()

    async def _decided(self, scope: Scope, import_id: str, fit: Fit) -> Fit:
        """As it was decided when the import began; a generation of its own is made where one is needed."""
        row = await self._house.database.read(store.read, scope, import_id)
        if row.fit is not None:
            return Fit(**row.fit)

        def decide(session: Session) -> Fit:
            decided = fit
            if fit.kind == "generation" and not fit.key:
                decided = replace(fit, key=store.add_generation(session, scope, import_id, fit))
            store.keep(session, scope, import_id, fit=asdict(decided))
            return decided

        return await self._house.database.write(decide)

    async def _bring(
        self, scope: Scope, import_id: str, fit: Fit, staging: Staging, coming: Counts, progress: Progress
    ) -> None:
        house = self._house
        writer = Writer(
            house.database, house.blobs, house.index, house.jobs, house.admit,
            key=fit.key if fit.kind != "none" else "", serves=fit.kind == "serving",
        )  # fmt: skip
        done = 0
        async for size, batch in self._batches(scope, import_id, staging):
            if batch:
                await writer.bring(scope, import_id, batch)
            done += size
            progress("documents", done, coming.documents)

    async def _batches(
        self, scope: Scope, import_id: str, staging: Staging
    ) -> AsyncIterator[tuple[int, list[Prepared]]]:
        """(documents behind it, those to bring); those that an earlier run brought are passed over."""
        after = ""
        while page := await asyncio.to_thread(staging.document_ids, after, DOCUMENTS):
            after = page[-1][0]
            ids = [id for id, _ in page]
            known = await self._house.database.read(store.known, scope, import_id, ids)
            yield len(known), []
            for group in _groups([each for each in page if each[0] not in known]):
                yield len(group), await asyncio.to_thread(_prepared, scope, staging, group)


def _prepared(scope: Scope, staging: Staging, ids: Sequence[str]) -> list[Prepared]:
    wholes: list[Whole] = [staging.whole(id) for id in ids]
    return [prepare(scope, whole) for whole in wholes]


def _groups(page: Sequence[tuple[str, int]]) -> list[list[str]]:
    """Documents of about CHUNKS passages together."""
    groups: list[list[str]] = []
    room = 0
    for id, chunks in page:
        if not groups or room < chunks:
            groups.append([])
            room = CHUNKS
        groups[-1].append(id)
        room -= chunks
    return groups


def check_needs(source: Source) -> None:
    """Raises Invalid when the mapping names a system that was not given."""
    if source.mapping.needs_mongo and source.documents is None:
        raise Invalid("The mapping reads from MongoDB: say where with --mongo.", code="source_unsaid")
    if source.mapping.needs_qdrant and source.points is None:
        raise Invalid("The mapping reads from Qdrant: say where with --qdrant.", code="source_unsaid")
