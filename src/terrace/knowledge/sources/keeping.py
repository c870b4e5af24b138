"""From what a source found to documents, and back. A document and the item it belongs to are one transaction."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from terrace.accounts.limits.base import Limits
from terrace.errors import Missing
from terrace.jobs.base import Context, Jobs
from terrace.knowledge import naming, tasks, trash
from terrace.knowledge import store as documents
from terrace.knowledge.admitting import Admitting
from terrace.knowledge.base import Index
from terrace.knowledge.receiving import Door, Received
from terrace.knowledge.settling import kept_if_known, to_the_end
from terrace.knowledge.sources import store
from terrace.knowledge.sources.base import Outcome
from terrace.knowledge.sources.tables import SourceItemRow, SourceRow
from terrace.knowledge.tables import DocumentRow
from terrace.storage import Blobs, Database
from terrace.types import Scope, now

Also = Callable[[Session, SourceItemRow], Any]


@dataclass(frozen=True, slots=True)
class Content:
    """What an item holds now. `file_name` decides between kinds of text; `title` is what people see."""

    file_name: str
    title: str
    pieces: AsyncIterator[bytes]
    url: str | None = None
    sha256: str | None = None  # remembered instead of that of the stored bytes
    also: Also | None = None  # written in the same transaction


class Keeper:
    """Adds, replaces and takes out the documents of a source's items."""

    def __init__(self, database: Database, blobs: Blobs, jobs: Jobs, index: Index, door: Door, limits: Limits) -> None:
        self._database = database
        self._blobs = blobs
        self._jobs = jobs
        self._index = index
        self._door = door
        self._limits = limits
        self._admitting = Admitting(jobs, limits)

    async def keep(self, context: Context, source: SourceRow, key: str, content: Content) -> Outcome:
        """The item's document is this content from now on: a new one, the same changed, or as it was.

        Raises Invalid for what is no document we read, Limited when there is no room.
        """
        scope = context.scope
        received = await self._door.receive(scope, content.file_name, content.pieces)
        title = naming.tidy(content.title)[: naming.MAX_NAME] or received.name
        received = replace(received, name=title)
        used = _Used()

        def place(session: Session) -> Outcome:
            used.clear()
            return self._place(session, context, source, key, received, content, used)

        def known(session: Session) -> set[str]:
            return documents.originals(session, [received.blob])

        async with kept_if_known(self._database, self._blobs, [received.blob], known):
            try:
                outcome: Outcome = await to_the_end(context.write(place))
            except IntegrityError:  # the same file came in by another way at the same moment
                outcome = await to_the_end(context.write(place))
        if not used.blob:
            await self._door.drop(received.blob)
        await self._tidy(scope, used.jobs)
        return outcome

    async def settle(
        self,
        context: Context,
        source: SourceRow,
        key: str,
        outcome: Outcome,
        reason: str = "",
        also: Also | None = None,
    ) -> None:
        """Say what became of an item whose document stays as it is."""

        def settle(session: Session) -> None:
            row = store.ensure_item(session, context.scope, source.id, key)
            _visited(row, context.job_id, outcome, reason)
            if also is not None:
                also(session, row)

        await context.write(settle)

    async def take_out(self, context: Context, source: SourceRow, key: str, reason: str) -> None:
        """Remove the item's document, if it brought it and nobody else has it."""
        stopped: list[str] = []

        def remove(session: Session) -> None:
            stopped.clear()
            row = store.ensure_item(session, context.scope, source.id, key)
            stopped.extend(self.release(session, context.scope, row))
            row.missing = store.GONE
            row.sha256 = row.text_sha256 = row.etag = row.last_modified = row.lastmod = None
            row.size = row.mtime_ns = None
            _visited(row, context.job_id, "removed", reason)
            row.changed_at = row.checked_at

        await context.write(remove)
        await self._tidy(context.scope, stopped)

    def release(self, session: Session, scope: Scope, row: SourceItemRow) -> list[str]:
        """The item has its document no more. It goes with what was its own, unless another item has it too; returns
        the jobs that were reading it."""
        stopped: list[str] = []
        document = _document(session, scope, row.document_id)
        if row.owned and document is not None:
            heir = store.heir(session, scope, row)
            if heir is not None:
                heir.owned = True
            else:
                stopped = documents.delete_documents(session, scope, self._index, [document])
        row.document_id, row.owned = None, False
        session.flush()
        return stopped

    async def _tidy(self, scope: Scope, stopped: list[str]) -> None:
        for job_id in stopped:
            with suppress(Missing):
                await self._jobs.cancel(scope, job_id, everyone=True)
        await trash.empty(self._database, self._blobs, scope)

    def _place(
        self,
        session: Session,
        context: Context,
        source: SourceRow,
        key: str,
        received: Received,
        content: Content,
        used: "_Used",
    ) -> Outcome:
        scope = context.scope
        row = store.ensure_item(session, scope, source.id, key)
        document = _document(session, scope, row.document_id)
        if document is not None and document.sha256 == received.sha256:
            outcome: Outcome = "unchanged"
            if document.state == "failed":  # what was in the way may be gone
                documents.enqueue(session, scope, self._jobs, document, tasks.INGEST)
        elif document is not None and self._replaceable(session, scope, row, document, received):
            self._replace(session, scope, document, received, content, used)
            outcome = "changed"
        else:
            self._add(session, scope, source, row, received, content, used)
            outcome = "added" if document is None else "changed"
        row.sha256 = content.sha256 or received.sha256
        row.missing = 0
        _visited(row, context.job_id, outcome, "")
        if outcome != "unchanged":
            row.changed_at = row.checked_at
        if content.also is not None:
            content.also(session, row)
        return outcome

    def _replaceable(
        self, session: Session, scope: Scope, row: SourceItemRow, document: DocumentRow, received: Received
    ) -> bool:
        """Whether the document is this item's alone, and no other is what it is to become."""
        return (
            row.owned
            and store.heir(session, scope, row) is None
            and documents.with_content(session, scope, document.collection_id, received.sha256) is None
        )

    def _replace(
        self, session: Session, scope: Scope, row: DocumentRow, received: Received, content: Content, used: "_Used"
    ) -> None:
        """The document keeps its id, and answers as it was until the new content is read."""
        self._limits.admit(session, scope, documents=0, bytes=max(0, received.bytes - row.bytes))
        if row.state in documents.IN_PROGRESS and row.job_id:
            used.jobs.append(row.job_id)
        documents.trash(session, scope, row.blob)
        row.blob, row.bytes, row.sha256 = received.blob, received.bytes, received.sha256
        row.media_type, row.source_url = received.media_type, content.url
        documents.set_name(row, received.name)
        documents.enqueue(session, scope, self._jobs, row, tasks.INGEST)
        used.blob = True

    def _add(
        self,
        session: Session,
        scope: Scope,
        source: SourceRow,
        row: SourceItemRow,
        received: Received,
        content: Content,
        used: "_Used",
    ) -> None:
        """A document of its own, or the one that is these very bytes already: that one is not the source's."""
        shown = self._admitting.one(session, scope, received, source.collection, source.tags)
        before = row.document_id
        if before != shown.id:
            used.jobs.extend(self.release(session, scope, row))
            row.document_id, row.owned = shown.id, not shown.duplicate
        if not shown.duplicate:
            documents.get(session, scope, shown.id).source_url = content.url
            used.blob = True
        session.flush()


@dataclass(slots=True)
class _Used:
    """What a transaction did that is followed up after it."""

    blob: bool = False
    jobs: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.blob = False
        self.jobs.clear()


def _document(session: Session, scope: Scope, document_id: str | None) -> DocumentRow | None:
    """None also when somebody deleted it: a source brings back what it should have."""
    if document_id is None:
        return None
    try:
        return documents.get(session, scope, document_id)
    except Missing:
        return None


def _visited(row: SourceItemRow, run: str, outcome: Outcome, reason: str) -> None:
    row.run, row.outcome, row.reason, row.checked_at = run, outcome, reason[:500], now()
