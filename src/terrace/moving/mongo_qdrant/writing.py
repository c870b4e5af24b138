"""A few documents at a time into Terrace: files first, then everything else in one transaction."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import insert
from sqlmodel import Session, col, select

from terrace.jobs.base import Jobs
from terrace.knowledge import store, tasks
from terrace.knowledge.base import Index, IndexedChunk
from terrace.knowledge.media import TEXT
from terrace.knowledge.settling import kept_if_known, to_the_end
from terrace.knowledge.tables import ChunkRow, DocumentRow, PageRow
from terrace.moving.mongo_qdrant import store as imports
from terrace.moving.mongo_qdrant.preparing import Prepared
from terrace.moving.mongo_qdrant.tables import ImportedRow, ImportRow
from terrace.storage import Blobs, Database
from terrace.types import Scope, new_id, now

TWIN = "The same text is in this collection already."


class Admit(Protocol):
    def __call__(self, session: Session, scope: Scope, *, documents: int, bytes: int) -> None: ...


class Writer:
    """`key`: what the vectors are kept under; empty leaves them out. `serves`: whether that is what search uses."""

    def __init__(
        self, database: Database, blobs: Blobs, index: Index, jobs: Jobs, admit: Admit, *, key: str, serves: bool
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._index = index
        self._jobs = jobs
        self._admit = admit
        self._key = key
        self._serves = serves

    async def bring(self, scope: Scope, import_id: str, batch: Sequence[Prepared]) -> None:
        """Each once, whatever was brought before. Raises Limited when the tenant has no room."""
        keys = [key for each in batch for key in _blobs(each)]

        def known(session: Session) -> set[str]:
            return _kept(session, scope, keys)

        async with kept_if_known(self._database, self._blobs, keys, known):
            await asyncio.gather(*(self._store(each) for each in batch))
            came = await to_the_end(self._database.write(self._write, scope, import_id, batch))
        for each in batch:
            if each.document_id not in came:
                for key in _blobs(each):
                    await self._blobs.delete(key)

    async def _store(self, each: Prepared) -> None:
        await self._blobs.put(each.blob, each.original)
        if each.chunks:
            await self._blobs.put(each.text_blob, each.text_data)

    def _write(self, session: Session, scope: Scope, import_id: str, batch: Sequence[Prepared]) -> set[str]:
        """The ids of those that came."""
        done = imports.known(session, scope, import_id, [each.source.document.id for each in batch])
        came: set[str] = set()
        touched: set[str] = set()
        indexing = _Indexing()
        for each in batch:
            if each.source.document.id in done:
                continue
            collection = self._collection(session, scope, import_id, each.collection)
            row = _imported(scope, import_id, each)
            if store.with_content(session, scope, collection, each.sha256) is None:
                self._admit(session, scope, documents=1, bytes=len(each.original))
                self._add(session, scope, collection, each, indexing)
                row.document_id = each.document_id
                came.add(each.document_id)
                touched.add(collection)
            else:
                row.note = TWIN
            session.add(row)
        indexing.run(session, scope, self._index, self._key)
        store.changed(session, scope, *touched)
        return came

    def _collection(self, session: Session, scope: Scope, import_id: str, name: str) -> str:
        """Its id; one that this import makes is written down with it."""
        if (found := store.find_collection(session, scope, name)) is not None:
            return found.id
        made = store.ensure_collection(session, scope, name)
        run = session.exec(
            select(ImportRow).where(ImportRow.tenant_id == scope.tenant, ImportRow.id == import_id)
        ).one()
        run.collections = [*run.collections, made.id]
        session.add(run)
        return made.id

    def _add(self, session: Session, scope: Scope, collection: str, each: Prepared, indexing: "_Indexing") -> None:
        row = _document(scope, collection, each)
        session.add(row)
        session.flush()
        store.set_tags(session, scope, row.id, each.tags)
        ids = [new_id("chk") for _ in each.chunks]
        if not ids:
            store.enqueue(session, scope, self._jobs, row, tasks.INGEST)
            return
        session.execute(insert(ChunkRow), [_chunk(scope, each, *pair) for pair in zip(ids, each.chunks, strict=True)])
        if each.pages:
            session.execute(insert(PageRow), [_page(scope, row.id, *page) for page in each.pages])
        title = each.title or each.name
        indexing.texts += [
            IndexedChunk(id, row.id, collection, title, chunk) for id, chunk in zip(ids, each.chunks, strict=True)
        ]
        if self._key and each.embedded:
            indexing.embedded += [ids[place] for place in each.embedded]
            indexing.vectors.append(each.vectors)
        if self._serves and len(each.embedded) == len(ids):
            row.searchable, row.embedding = "meaning", self._key
        elif self._serves or not self._key:
            store.enqueue(session, scope, self._jobs, row, tasks.EMBED)
        session.add(row)
        session.flush()


@dataclass(slots=True)
class _Indexing:
    """What the index shall know of some documents, told at once: that costs a fraction of telling it one by one."""

    texts: list[IndexedChunk] = field(default_factory=list)
    embedded: list[str] = field(default_factory=list)  # chunks
    vectors: list[Any] = field(default_factory=list)  # of the chunks of one document each

    def run(self, session: Session, scope: Scope, index: Index, key: str) -> None:
        import numpy as np

        if self.texts:
            index.add_text(session, scope, self.texts)
        if self.embedded:
            index.add_vectors(session, scope, key, self.embedded, np.concatenate(self.vectors))


def _blobs(each: Prepared) -> list[str]:
    return [each.blob, each.text_blob] if each.chunks else [each.blob]


def _kept(session: Session, scope: Scope, keys: Sequence[str]) -> set[str]:
    """Those that a row refers to."""
    kept: set[str] = set()
    for column in (col(DocumentRow.blob), col(DocumentRow.text_blob)):
        query = select(column).where(DocumentRow.tenant_id == scope.tenant, column.in_(keys))
        kept |= {key for key in session.exec(query) if key is not None}
    return kept


def _imported(scope: Scope, import_id: str, each: Prepared) -> ImportedRow:
    return ImportedRow(
        import_id=import_id,
        source_id=each.source.document.id,
        tenant_id=scope.tenant,
        content=each.content,
        chunks=len(each.chunks),
        vectors=len(each.embedded),
        note=each.note,
        details=each.source.document.metadata or {},
    )


def _document(scope: Scope, collection: str, each: Prepared) -> DocumentRow:
    at = now()
    return DocumentRow(
        id=each.document_id,
        tenant_id=scope.tenant,
        collection_id=collection,
        name=each.name,
        name_key=store.name_key(each.name, each.title),
        title=each.title,
        media_type=TEXT,
        bytes=len(each.original),
        sha256=each.sha256,
        state="ready",
        searchable="words" if each.chunks else "no",
        pages=len(each.pages) or None,
        chunk_count=len(each.chunks),
        characters=len(each.text),
        user_id=scope.user,
        blob=each.blob,
        text_blob=each.text_blob if each.chunks else None,
        source_url=each.url,
        created_at=each.source.document.created or at,
        updated_at=at,
    )


def _chunk(scope: Scope, each: Prepared, id: str, chunk: Any) -> dict[str, Any]:
    from hashlib import sha256

    return {
        "id": id,
        "tenant_id": scope.tenant,
        "document_id": each.document_id,
        "ordinal": chunk.ordinal,
        "start_char": chunk.span.start,
        "end_char": chunk.span.end,
        "page": chunk.page,
        "headings": list(chunk.headings),
        "title": each.title or each.name,
        "text": chunk.text,
        "text_sha256": sha256(chunk.text.encode()).hexdigest(),
    }


def _page(scope: Scope, document_id: str, number: int, start: int, end: int) -> dict[str, Any]:
    return {
        "document_id": document_id,
        "number": number,
        "tenant_id": scope.tenant,
        "start_char": start,
        "end_char": end,
    }


def unlimited(session: Session, scope: Scope, *, documents: int, bytes: int) -> None:
    """Admits everything."""
