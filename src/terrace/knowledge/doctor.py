"""Finds documents that are stuck, half-done or pointing nowhere, and blobs that nobody knows; mends what can be."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import Session, col, select

from terrace.jobs.base import Jobs
from terrace.knowledge import store, tasks, trash
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.health import documents
from terrace.knowledge.health.base import InspectedIndex, Strays
from terrace.knowledge.health.documents import Ailment
from terrace.knowledge.tables import ChunkRow, DocumentRow, TrashRow
from terrace.storage import Blobs, Database
from terrace.types import Finding, Scope, now

ORPHAN_AGE = 24 * 3600.0  # seconds: a younger blob may belong to an upload that is still arriving
MEND_AT_ONCE = 2000  # rows of the index in one transaction

Repair = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """A finding and how to mend it; None where only a person can. `count`: how many it stands for."""

    finding: Finding
    repair: Repair | None
    count: int = 1


class Doctor:
    def __init__(
        self, database: Database, blobs: Blobs, jobs: Jobs, index: InspectedIndex, embedder: StatefulEmbedder
    ) -> None:
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
        cases = await self._not_embedded() + await self._full_trash() + await self.blobs_astray(age=ORPHAN_AGE)
        return await _mend(cases)

    def ailments(self) -> list[Ailment]:
        """What may be wrong with a document's row, as things are now."""
        embedding = [] if self._absent else [documents.unembedded(self._embedder.name)]
        return [documents.stuck(), documents.hollow(), *embedding]

    async def _cases(self, orphan_age: float) -> list[Case]:
        return [
            *[case for ailment in self.ailments() for case in await self._ailing(ailment)],
            *[case for tenant in await self._database.read(_tenants) for case in await self.index_astray(tenant)],
            *await self.blobs_astray(age=orphan_age),
            *await self._full_trash(),
        ]

    # -- documents

    @property
    def _absent(self) -> bool:
        return self._embedder.state().state == "absent"

    async def _not_embedded(self) -> list[Case]:
        return [] if self._absent else await self._ailing(documents.unembedded(self._embedder.name))

    async def _ailing(self, ailment: Ailment) -> list[Case]:
        rows = await self._database.read(documents.ailing, ailment)
        return [self._again(row, ailment.code, documents.told(ailment, row), kind=ailment.job) for row in rows]

    def _again(self, row: DocumentRow, code: str, message: str, *, kind: str = tasks.INGEST) -> Case:
        async def repair() -> None:
            await self._database.write(documents.again, self._jobs, row, kind)

        return Case(Finding("knowledge", code, message, row.id, True), repair)

    # -- the index

    async def index_astray(self, tenant: str, found: Strays | None = None) -> list[Case]:
        """One transaction writes chunks and index, so they differ only when somebody else wrote into the database.
        `found`: what the index said of itself, if it was asked already."""
        scope = Scope(tenant)
        if found is None:
            found = await self._database.read(self._index.strays, scope, None)
        chunks = await self._database.read(_orphaned_chunks, scope)
        cases = []
        if chunks:
            told = f"{chunks:,} passages are kept of documents that are gone."
            cases.append(self._astray("chunks_orphaned", told, tenant, chunks, self._drop_chunks))
        for kind, count, told in (
            ("orphaned", found.orphaned, "{:,} vectors are kept of passages that are gone."),
            ("odd", found.odd, "{:,} vectors have another width than the rest of their model."),
        ):
            if count:
                code, told = f"vectors_{kind}", told.format(count)
                cases.append(self._astray(code, told, tenant, count, self._dropping(kind)))
        if found.extra or found.missing:
            told = f"{found.missing:,} passages are not in the full text, and {found.extra:,} that are gone still are."
            cases.append(self._astray("index_differs", told, tenant, found.extra + found.missing, self._mend_text))
        return cases

    def _astray(
        self, code: str, message: str, tenant: str, count: int, mend: Callable[[Scope], Awaitable[None]]
    ) -> Case:
        async def repair() -> None:
            await mend(Scope(tenant))

        return Case(Finding("knowledge", code, message, tenant, True), repair, count)

    async def _mend_text(self, scope: Scope) -> None:
        after = 0
        while after := await self._database.write(self._index.mend_text, scope, MEND_AT_ONCE, after):
            pass

    async def _drop_chunks(self, scope: Scope) -> None:
        while await self._database.write(_drop_orphaned_chunks, scope, self._index):
            pass

    def _dropping(self, kind: str) -> Callable[[Scope], Awaitable[None]]:
        async def drop(scope: Scope) -> None:
            await self.drop_vectors(scope, kind, None)

        return drop

    async def drop_vectors(self, scope: Scope, kind: str, serving: Sequence[str] | None) -> None:
        """Remove strays of the vectors; documents that lose what serves them are embedded again."""

        def drop(session: Session) -> int:
            gone = self._index.remove_vectors(session, scope, serving, kind, MEND_AT_ONCE)
            if kind == "odd":
                for row in session.exec(select(DocumentRow).where(col(DocumentRow.id).in_(set(gone)))):
                    row.embedding, row.searchable = None, "words"
                    documents.again(session, self._jobs, row, tasks.EMBED)
            return len(gone)

        while await self._database.write(drop) == MEND_AT_ONCE:
            pass

    # -- blobs

    async def blobs_astray(self, tenant: str | None = None, *, age: float = ORPHAN_AGE) -> list[Case]:
        """Files without a row, and rows without a file; of all tenants without `tenant`. Other rooms' files are theirs
        to look after."""
        where = f"{tenant}/documents/" if tenant is not None else ""
        stored = {each.key: each.modified_at async for each in self._blobs.list(where) if _is_documents(each.key)}
        known = await self._database.read(_blobs_known, tenant)  # after the listing: what came in meanwhile is in both
        cases = [
            self._orphan(key) for key, modified_at in stored.items() if key not in known and modified_at < now() - age
        ]
        for key, (document_id, is_original) in known.items():
            if document_id and key not in stored and not await self._blobs.exists(key):
                cases.append(await self._missing(key, document_id, is_original))
        return cases

    def _orphan(self, key: str) -> Case:
        async def repair() -> None:
            if key not in await self._database.read(_blobs_known, key.split("/")[0]):
                await self._blobs.delete(key)

        message = "A file is kept that no document refers to: an upload that was broken off."
        return Case(Finding("knowledge", "blob_orphaned", message, key, True), repair)

    async def _missing(self, key: str, document_id: str, is_original: bool) -> Case:
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
        return Case(Finding("knowledge", "blob_missing", message, document_id, False), None)

    async def _full_trash(self) -> list[Case]:
        def find(session: Session) -> list[tuple[str, int]]:
            return list(session.exec(select(TrashRow.tenant_id, func.count()).group_by(TrashRow.tenant_id)).all())

        return [self._trash_of(tenant, count) for tenant, count in await self._database.read(find)]

    def _trash_of(self, tenant: str, count: int) -> Case:
        async def repair() -> None:
            await trash.empty(self._database, self._blobs, Scope(tenant))

        message = f"{count:,} files of deleted documents still wait to be removed."
        return Case(Finding("knowledge", "trash_full", message, tenant, True), repair)


async def _mend(cases: list[Case]) -> int:
    repairs = [case.repair for case in cases if case.repair is not None]
    for repair in repairs:
        await repair()
    return len(repairs)


def _is_documents(key: str) -> bool:
    return key.split("/")[1:2] == ["documents"]


def _blobs_known(session: Session, tenant: str | None) -> dict[str, tuple[str, bool]]:
    """Every key that rows refer to: (its document or "" for trash, whether it is the original)."""
    thrown, kept = select(TrashRow.key), select(DocumentRow.id, DocumentRow.blob, DocumentRow.text_blob)
    if tenant is not None:
        thrown, kept = thrown.where(TrashRow.tenant_id == tenant), kept.where(DocumentRow.tenant_id == tenant)
    known = dict.fromkeys(session.exec(thrown), ("", False))
    for document_id, original, text in session.exec(kept):
        known[original] = (document_id, True)
        if text is not None:
            known[text] = (document_id, False)
    return known


def _tenants(session: Session) -> Sequence[str]:
    """Whoever has passages."""
    return session.exec(select(ChunkRow.tenant_id).distinct()).all()


def _orphans(scope: Scope) -> tuple[bool, ...]:
    known = select(DocumentRow.id).where(DocumentRow.tenant_id == scope.tenant)
    return ChunkRow.tenant_id == scope.tenant, col(ChunkRow.document_id).not_in(known)  # type: ignore[return-value]


def _orphaned_chunks(session: Session, scope: Scope) -> int:
    return session.exec(select(func.count()).select_from(ChunkRow).where(*_orphans(scope))).one()


def _drop_orphaned_chunks(session: Session, scope: Scope, index: InspectedIndex) -> bool:
    """Of one document that is gone."""
    gone = session.exec(select(ChunkRow.document_id).where(*_orphans(scope)).limit(1)).first()
    if gone is not None:
        store.forget_contents(session, scope, index, gone)
    return gone is not None
