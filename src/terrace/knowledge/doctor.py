"""Finds documents that are stuck, half-done or pointing nowhere, and blobs that nobody knows; mends what can be."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import Session, col, select

from terrace.jobs.base import FINAL, Jobs
from terrace.jobs.tables import JobRow
from terrace.knowledge import store, tasks, trash
from terrace.knowledge.base import Index
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.tables import ChunkRow, DocumentRow, TrashRow
from terrace.storage import Blobs, Database
from terrace.types import Finding, Scope, now

PRIORITY = -10  # what somebody waits for goes first
ORPHAN_AGE = 24 * 3600.0  # seconds: a younger blob may belong to an upload that is still arriving

Repair = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Case:
    """A finding and how to mend it; None where only a person can."""

    finding: Finding
    repair: Repair | None


class Doctor:
    def __init__(self, database: Database, blobs: Blobs, jobs: Jobs, index: Index, embedder: StatefulEmbedder) -> None:
        self._database = database
        self._blobs = blobs
        self._jobs = jobs
        self._index = index
        self._embedder = embedder

    async def examine(self, *, orphan_age: float = ORPHAN_AGE) -> list[Finding]:
        """What is wrong, over all tenants. A blob is an orphan after `orphan_age` seconds."""
        return [case.finding for case in await self._cases(orphan_age)]

    async def repair(self, *, orphan_age: float = ORPHAN_AGE) -> list[Finding]:
        """Mend what can be; returns what was. Running it twice is harmless."""
        repaired = []
        for case in await self._cases(orphan_age):
            if case.repair is not None:
                await case.repair()
                repaired.append(case.finding)
        return repaired

    async def embed_missing(self) -> int:
        """Put in a job for each document that the present embedding model hasn't seen; how many there were.

        For the start: a model that was away, or another one than before.
        """
        return await _mend(await self._not_embedded())

    async def keep_house(self) -> int:
        """What a start and then every day should do: embed what isn't, remove trash and orphans. How many mended."""
        cases = await self._not_embedded() + await self._full_trash() + await self._blobs_astray(ORPHAN_AGE)
        return await _mend(cases)

    async def _cases(self, orphan_age: float) -> list[_Case]:
        return [
            *await self._stuck(),
            *await self._hollow(),
            *await self._not_embedded(),
            *await self._out_of_step(),
            *await self._blobs_astray(orphan_age),
            *await self._full_trash(),
        ]

    # -- documents

    async def _stuck(self) -> list[_Case]:
        """Said to be in progress, but no job is at work on them."""
        alive = select(JobRow.id).where(col(JobRow.state).not_in(FINAL))

        def find(session: Session) -> list[DocumentRow]:
            query = select(DocumentRow).where(col(DocumentRow.state).in_(store.IN_PROGRESS))
            lost = col(DocumentRow.job_id).is_(None) | col(DocumentRow.job_id).not_in(alive)
            return list(session.exec(query.where(lost)))

        return [
            self._again(row, "document_stuck", f"{row.name!r} is said to be {row.state}, but no job is at work on it.")
            for row in await self._database.read(find)
        ]

    async def _hollow(self) -> list[_Case]:
        """Ready, yet without the passages it should have."""
        counted = select(ChunkRow.document_id, func.count().label("kept")).group_by(ChunkRow.document_id).subquery()

        def find(session: Session) -> list[DocumentRow]:
            query = (
                select(DocumentRow)
                .join(counted, counted.c.document_id == DocumentRow.id, isouter=True)
                .where(DocumentRow.state == "ready", func.coalesce(counted.c.kept, 0) != DocumentRow.chunk_count)
            )
            return list(session.exec(query))

        return [
            self._again(row, "document_hollow", f"{row.name!r} is ready, but its passages are not all there.")
            for row in await self._database.read(find)
        ]

    async def _not_embedded(self) -> list[_Case]:
        """Ready, but not by the meaning that the present model gives."""
        if self._embedder.state().state == "absent":
            return []
        model = self._embedder.name

        def find(session: Session) -> list[DocumentRow]:
            query = select(DocumentRow).where(DocumentRow.state == "ready", DocumentRow.chunk_count > 0)
            return list(
                session.exec(query.where(col(DocumentRow.embedding).is_(None) | (col(DocumentRow.embedding) != model)))
            )

        message = "{!r} is found by words only: it has no vectors of {}."
        return [
            self._again(row, "vectors_missing", message.format(row.name, model), kind=tasks.EMBED)
            for row in await self._database.read(find)
        ]

    def _again(self, row: DocumentRow, code: str, message: str, *, kind: str = tasks.INGEST) -> _Case:
        scope = Scope(row.tenant_id)
        seen = row.job_id

        def enqueue(session: Session) -> None:
            current = store.get(session, scope, row.id)
            if current.job_id == seen:  # nobody was quicker
                store.enqueue(session, scope, self._jobs, current, kind, priority=PRIORITY)

        async def repair() -> None:
            await self._database.write(enqueue)

        return _Case(Finding("knowledge", code, message, row.id, True), repair)

    # -- the index

    async def _out_of_step(self) -> list[_Case]:
        """One transaction writes chunks and index, so they differ only when somebody else wrote into the database."""

        def find(session: Session) -> list[tuple[str, int, int, int]]:
            query = select(ChunkRow.tenant_id, func.count()).group_by(ChunkRow.tenant_id)
            return [
                (tenant, kept, *self._indexed(session, Scope(tenant))) for tenant, kept in session.exec(query).all()
            ]

        return [
            self._differing(tenant, kept, texts, vectors)
            for tenant, kept, texts, vectors in await self._database.read(find)
            if texts != kept
        ]

    def _differing(self, tenant: str, kept: int, texts: int, vectors: int) -> _Case:
        message = f"{kept:,} passages are kept, but {texts:,} are in the full text and {vectors:,} vectors are."
        if texts > kept:  # words of passages that nobody can name any more
            return _Case(Finding("knowledge", "index_differs", f"{message} Restore a backup.", tenant, False), None)

        def find(session: Session) -> list[DocumentRow]:
            query = select(DocumentRow).where(DocumentRow.tenant_id == tenant, DocumentRow.state == "ready")
            return list(session.exec(query))

        async def repair() -> None:
            await _mend([self._again(row, "index_differs", "") for row in await self._database.read(find)])

        told = f"{message} All documents are read again."
        return _Case(Finding("knowledge", "index_differs", told, tenant, True), repair)

    def _indexed(self, session: Session, scope: Scope) -> tuple[int, int]:
        counts = self._index.counts(session, scope)
        return counts["chunks"], counts["vectors"]

    # -- blobs

    async def _blobs_astray(self, orphan_age: float) -> list[_Case]:
        """Files without a row, and rows without a file. Other rooms' files are theirs to look after."""
        stored = {each.key: each.modified_at async for each in self._blobs.list() if _is_documents(each.key)}
        known = await self._database.read(_blobs_known)  # after the listing: what came in meanwhile is in both
        cases = [
            self._orphan(key)
            for key, modified_at in stored.items()
            if key not in known and modified_at < now() - orphan_age
        ]
        for key, (document_id, is_original) in known.items():
            if document_id and key not in stored and not await self._blobs.exists(key):
                cases.append(await self._missing(key, document_id, is_original))
        return cases

    def _orphan(self, key: str) -> _Case:
        async def repair() -> None:
            if key not in await self._database.read(_blobs_known):
                await self._blobs.delete(key)

        message = "A file is kept that no document refers to: an upload that was broken off."
        return _Case(Finding("knowledge", "blob_orphaned", message, key, True), repair)

    async def _missing(self, key: str, document_id: str, is_original: bool) -> _Case:
        def find(session: Session) -> DocumentRow:
            return session.exec(select(DocumentRow).where(DocumentRow.id == document_id)).one()

        row = await self._database.read(find)
        if not is_original:
            return self._again(
                row, "text_missing", f"The text of {row.name!r} is gone; it is read from the file again."
            )
        message = (
            f"The file of {row.name!r} is gone from the data folder. Restore it, or delete it and upload it again."
        )
        return _Case(Finding("knowledge", "blob_missing", message, document_id, False), None)

    async def _full_trash(self) -> list[_Case]:
        def find(session: Session) -> list[tuple[str, int]]:
            return list(session.exec(select(TrashRow.tenant_id, func.count()).group_by(TrashRow.tenant_id)).all())

        return [self._trash_of(tenant, count) for tenant, count in await self._database.read(find)]

    def _trash_of(self, tenant: str, count: int) -> _Case:
        async def repair() -> None:
            await trash.empty(self._database, self._blobs, Scope(tenant))

        message = f"{count:,} files of deleted documents still wait to be removed."
        return _Case(Finding("knowledge", "trash_full", message, tenant, True), repair)


async def _mend(cases: list[_Case]) -> int:
    repairs = [case.repair for case in cases if case.repair is not None]
    for repair in repairs:
        await repair()
    return len(repairs)


def _is_documents(key: str) -> bool:
    return key.split("/")[1:2] == ["documents"]


def _blobs_known(session: Session) -> dict[str, tuple[str, bool]]:
    """Every key that rows refer to: (its document or "" for trash, whether it is the original)."""
    known = dict.fromkeys(session.exec(select(TrashRow.key)), ("", False))
    for document_id, original, text in session.exec(select(DocumentRow.id, DocumentRow.blob, DocumentRow.text_blob)):
        known[original] = (document_id, True)
        if text is not None:
            known[text] = (document_id, False)
    return known
