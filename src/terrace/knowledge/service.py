"""The library: documents come in, are listed, read, tagged, read again and removed."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from terrace.accounts.limits.base import Limits
from terrace.accounts.limits.unlimited import Unlimited
from terrace.errors import Conflict, Invalid, Missing, bad_cursor
from terrace.jobs.base import Jobs
from terrace.knowledge import naming, store, tasks, texts, trash
from terrace.knowledge.admitting import Admitting
from terrace.knowledge.base import Document, DocumentState, Index, Page
from terrace.knowledge.media import PDF
from terrace.knowledge.pages import PageMarks
from terrace.knowledge.receiving import Door, Received, Refused
from terrace.knowledge.settling import kept_if_known, to_the_end
from terrace.knowledge.views import DEFAULT_COLLECTION, BatchItem, Collection, Labels, StoredChunk, Tag, TextSlice
from terrace.storage import Blobs, Database
from terrace.types import Scope, now

__all__ = ["Knowledge", "Labels"]

MAX_TEXT = 1_000_000  # characters of a document shown at a time
MAX_PAGE = 500  # items of a list at a time


class Pictures(Protocol):
    """Pictures of PDF pages, and where a span of the text stands on them."""

    async def page_image(self, path: Path, page: Page, start: int = 0, end: int = 0, width: int = 1000) -> bytes: ...

    async def page_marks(self, path: Path, page: Page, start: int, end: int) -> PageMarks: ...


class Knowledge:
    """`limits` has the last word on what is taken."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        jobs: Jobs,
        index: Index,
        door: Door,
        pictures: Pictures,
        limits: Limits | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._jobs = jobs
        self._index = index
        self._door = door
        self._pictures = pictures
        self._admitting = Admitting(jobs, limits or Unlimited())

    # -- coming in

    async def upload(
        self,
        scope: Scope,
        name: str,
        stream: AsyncIterator[bytes],
        *,
        collection: str = DEFAULT_COLLECTION,
        tags: Iterable[str] = (),
    ) -> tuple[Document, str | None]:
        """`receive` and `admit` in one."""
        labels = Labels(collection, list(tags))
        naming.tag_names(labels.tags)  # refused before the file arrives
        received = await self.receive(scope, name, stream)
        async with self.kept_on_success(received):
            return await self.admit(scope, received, labels)

    async def receive(self, scope: Scope, name: str, stream: AsyncIterator[bytes]) -> Received:
        """Store a file that no row knows yet: `admit` it, or lose it with `kept_on_success`.

        Raises Invalid when it is too large, empty or of a kind we don't read; nothing is left then.
        """
        return await self._door.receive(scope, name, stream)

    def kept_on_success(self, *received: Received) -> AbstractAsyncContextManager[None]:
        """Removes what was received, but not admitted, when the block fails."""
        keys = [each.blob for each in received]
        return kept_if_known(self._database, self._blobs, keys, lambda session: store.originals(session, keys))

    async def admit(self, scope: Scope, received: Received, labels: Labels) -> tuple[Document, str | None]:
        """Write the document and have it read; the document, and the job that reads it.

        A file whose bytes are in the collection already is that document (`duplicate`); when it had failed, it is
        read again. Raises Limited when there is no room for one more.
        """
        tags = naming.tag_names(labels.tags)
        document = await self._write_once(self._admitting.one, scope, received, labels.collection, tags)
        if document.duplicate:
            await self._door.drop(received.blob)
        return document, document.job_id

    async def batch_upload(
        self, scope: Scope, files: AsyncIterable[tuple[str, AsyncIterator[bytes]]], labels: Labels | None = None
    ) -> tuple[str | None, Sequence[BatchItem]]:
        """Take many files, or zips of files, in: one parent job with a child for each, and what became of each file.

        A file that can't be taken is told in its place and stops no other. The rows are written together at the end:
        a connection that breaks off leaves nothing. The job is None when there is nothing to read.
        """
        labels = labels or Labels()
        got: list[Received | Refused] = []
        try:
            async for name, stream in files:
                async with aclosing(self._door.receive_any(scope, name, stream)) as received:
                    async for each in received:
                        got.append(each)  # noqa: PERF401 - what came before a failure must be known
            tags = naming.tag_names(labels.tags)
            job_id, items = await self._write_once(self._admitting.batch, scope, got, labels.collection, tags)
        except BaseException:
            async with self.kept_on_success(*(each for each in got if isinstance(each, Received))):
                raise
        kept = {item.document.id for item in items if item.document and not item.document.duplicate}
        await self._door.drop(
            *(each.blob for each in got if isinstance(each, Received) and each.document_id not in kept)
        )
        return job_id, items

    async def _write_once(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Two uploads of one file at once may meet on databases with many writers; the second then finds the first."""
        try:
            return await to_the_end(self._database.write(work, *arguments))
        except IntegrityError:
            return await to_the_end(self._database.write(work, *arguments))

    # -- looking

    async def get(self, scope: Scope, document_id: str) -> Document:
        return await self._database.read(store.show, scope, document_id)

    async def list(
        self,
        scope: Scope,
        *,
        collection: str | None = None,
        tag: str | None = None,
        state: DocumentState | None = None,
        q: str = "",
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Document], str | None]:
        """Newest first, and the cursor of the next page. `collection` is an id or name, `q` part of a name or title."""
        limit = max(1, min(limit, MAX_PAGE))

        def find(session: Session) -> list[Document]:
            return store.find(
                session, scope, collection=collection, tag=tag, state=state, q=q, limit=limit + 1, cursor=cursor
            )

        found = await self._database.read(find)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def counts(self, scope: Scope) -> dict[str, Any]:
        """{documents, bytes, states: {state: n}, chunks, vectors}."""
        return await self._database.read(store.counts, scope, self._index)

    # -- changing

    async def update(
        self,
        scope: Scope,
        document_id: str,
        *,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        collection: str | None = None,
    ) -> Document:
        """Rename, tag or move it. Raises Conflict when the same file is in the other collection already."""
        wanted = None if tags is None else naming.tag_names(tags)

        def change(session: Session) -> Document:
            row = store.get(session, scope, document_id)
            store.changed(session, scope, row.collection_id)  # tags are filters, names stand in citations
            if name is not None:
                store.set_name(row, naming.file_name(name, unnamed=""))
            if wanted is not None:
                store.set_tags(session, scope, document_id, wanted)
            if collection is not None:
                store.move(session, scope, row, collection)
            row.updated_at = now()
            session.flush()
            return store.shown(session, scope, [row])[0]

        return await self._database.write(change)

    async def reprocess(self, scope: Scope, document_id: str) -> tuple[Document, str]:
        """Read it again; what is there answers meanwhile. While it is being read, that job is returned."""

        def again(session: Session) -> tuple[Document, str]:
            row = store.get(session, scope, document_id)
            running = row.job_id if row.state in store.IN_PROGRESS else None
            job_id = running or store.enqueue(session, scope, self._jobs, row, tasks.INGEST)
            session.flush()
            return store.shown(session, scope, [row])[0], job_id

        return await self._database.write(again)

    async def delete(self, scope: Scope, document_id: str) -> None:
        """Remove it with its chunks, vectors and files; a job reading it is stopped."""

        def remove(session: Session) -> Sequence[str]:
            row = store.get(session, scope, document_id)
            return store.delete_documents(session, scope, self._index, [row])

        await self._after_removal(scope, await self._database.write(remove))

    async def _after_removal(self, scope: Scope, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            with suppress(Missing):
                await self._jobs.cancel(scope, job_id)
        await trash.empty(self._database, self._blobs, scope)

    # -- reading

    async def text(self, scope: Scope, document_id: str, start: int = 0, end: int | None = None) -> TextSlice:
        """Characters [start, end) of the text, up to a million at a time; a span beyond it is cut to it.

        Raises Conflict while the document hasn't been read.
        """

        if start < 0 or (end is not None and end < start):
            raise Invalid("A span starts at 0 or later and does not end before it starts.", code="bad_span")
        try:
            return await self._text(scope, document_id, start, end)
        except Missing:  # read again in this very moment: the text has another key now
            return await self._text(scope, document_id, start, end)

    async def _text(self, scope: Scope, document_id: str, start: int, end: int | None) -> TextSlice:
        def find(session: Session) -> tuple[str | None, int, int | None]:
            row = store.get(session, scope, document_id)
            return row.text_blob, row.characters, store.page_at(session, scope, document_id, start)

        key, total, page = await self._database.read(find)
        if key is None:
            raise Conflict("This document hasn't been read yet, so it has no text.", code="not_read_yet")
        first = min(start, total)
        last = min(total if end is None else end, total, first + MAX_TEXT)
        width = texts.width_in(key)
        data = await self._blobs.read(key, start=width * first, end=width * last)
        return TextSlice(texts.decode(data, width), first, last, total, page)

    async def pages(self, scope: Scope, document_id: str) -> Sequence[Page]:
        """Each page and its span of the text; none for what has no pages."""
        return await self._database.read(store.pages, scope, document_id)

    async def chunks(
        self, scope: Scope, document_id: str, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[Sequence[StoredChunk], str | None]:
        """In the order of the text, and the cursor of the next page."""
        limit = max(1, min(limit, MAX_PAGE))
        if cursor is not None and not cursor.isdecimal():
            raise bad_cursor()
        after = int(cursor) if cursor else -1
        found = await self._database.read(store.chunks, scope, document_id, limit=limit + 1, after=after)
        return found[:limit], str(found[limit - 1].ordinal) if len(found) > limit else None

    async def original(self, scope: Scope, document_id: str) -> tuple[Document, AsyncIterator[bytes]]:
        """The file as it was uploaded."""
        document, key = await self._original(scope, document_id)
        return document, self._blobs.stream(key)

    async def original_link(self, scope: Scope, document_id: str) -> str | None:
        """Where the file can be fetched from for a few minutes, past this server; None where it must be streamed."""
        document, key = await self._original(scope, document_id)
        return await self._blobs.link(key, name=document.name, media_type=document.media_type)

    async def page_image(
        self,
        scope: Scope,
        document_id: str,
        number: int,
        *,
        start: int | None = None,
        end: int | None = None,
        width: int = 1200,
    ) -> bytes:
        """A page of a PDF as a PNG of `width` pixels, the span [start, end) of the text marked.

        Raises Missing when there is no such page, Invalid when it isn't a PDF.
        """
        key, page = await self._page(scope, document_id, number)
        async with self._blobs.local(key) as path:
            return await self._pictures.page_image(path, page, start or 0, end or 0, width)

    async def page_marks(self, scope: Scope, document_id: str, number: int, *, start: int, end: int) -> dict[str, Any]:
        """Where a span stands on a page: {width, height, boxes: [[x0, y0, x1, y1]]} in fractions of the page."""
        key, page = await self._page(scope, document_id, number)
        async with self._blobs.local(key) as path:
            return asdict(await self._pictures.page_marks(path, page, start, end))

    async def _original(self, scope: Scope, document_id: str) -> tuple[Document, str]:
        def find(session: Session) -> tuple[Document, str]:
            row = store.get(session, scope, document_id)
            return store.shown(session, scope, [row])[0], row.blob

        return await self._database.read(find)

    async def _page(self, scope: Scope, document_id: str, number: int) -> tuple[str, Page]:
        """The original's key, and the page of this number."""
        document, key = await self._original(scope, document_id)
        if document.media_type != PDF:
            raise Invalid("Only pages of a PDF can be shown as pictures; read the text instead.", code="not_a_pdf")
        for page in await self.pages(scope, document_id):
            if page.number == number:
                return key, page
        raise Missing("This document has no such page.", code="page_missing")

    # -- collections and tags

    async def collections(self, scope: Scope) -> Sequence[Collection]:
        """By name; the default one is always among them."""
        found = await self._database.read(store.collections, scope)
        if not any(each.name == DEFAULT_COLLECTION for each in found):
            await self._database.write(lambda session: store.ensure_collection(session, scope, DEFAULT_COLLECTION).id)
            found = await self._database.read(store.collections, scope)
        return found

    async def collection(self, scope: Scope, id_or_name: str) -> Collection:
        """By id or name. Raises Missing."""
        name = naming.key(id_or_name)
        for each in await self.collections(scope):
            if each.id == id_or_name or naming.key(each.name) == name:
                return each
        raise Missing("There is no such collection.", code="collection_missing")

    async def create_collection(self, scope: Scope, name: str) -> Collection:
        """Raises Conflict when there is one of this name, whatever its case."""
        return await self._database.write(store.create_collection, scope, naming.collection_name(name))

    async def delete_collection(self, scope: Scope, id_or_name: str) -> None:
        """With its documents. The default one is emptied and stays."""

        def remove(session: Session) -> Sequence[str]:
            return store.delete_collection(session, scope, self._index, id_or_name)

        await self._after_removal(scope, await self._database.write(remove))

    async def tags(self, scope: Scope) -> Sequence[Tag]:
        """The tags in use, by name."""
        return await self._database.read(store.tags, scope)
