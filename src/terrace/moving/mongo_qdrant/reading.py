"""From the source to the staging, by the mapping. What is wrong with a record is written down, and stops no other."""

import asyncio
import re
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from terrace.moving.mongo_qdrant import fields
from terrace.moving.mongo_qdrant.base import Documents, Point, Points, Record
from terrace.moving.mongo_qdrant.mapping import Mapping
from terrace.moving.mongo_qdrant.staging import StagedChunk, StagedDocument, Staging

MAX_TEXT = 20_000_000  # characters of a document, as of a file that is read
MAX_CHUNK = 100_000  # characters of a passage
MAX_HEADINGS = 10
MAX_TAG_WORDS = 50

Progress = Callable[[str, int, int | None], None]  # what, how many, of how many
_HEADING = re.compile(r"\s*(?:\n|>|/|›)\s*")


class Reader:
    """`documents` and `points` may be None where the mapping names nothing of theirs."""

    def __init__(
        self, mapping: Mapping, documents: Documents | None, points: Points | None, staging: Staging, progress: Progress
    ) -> None:
        self._mapping = mapping
        self._documents = documents
        self._points = points
        self._staging = staging
        self._progress = progress
        self._place = 0

    async def read(self) -> None:
        """Everything the mapping names that was not read to its end before."""
        mapping = self._mapping
        made = () if mapping.documents.collection else ("documents",)
        if mapping.documents.collection:
            listed = ("chunks",) if mapping.chunks.source == "documents" else ()
            await self._mongo(mapping.documents.collection, self._take_documents, ("documents", *listed))
        if mapping.chunks.source == "mongo":
            await self._mongo(mapping.chunks.collection, self._take_chunks, ("chunks", *made))
        if mapping.vectors.collection:
            brought = ("chunks", *made) if mapping.chunks.source == "qdrant" else ()
            await self._qdrant(mapping.vectors.collection, ("vectors", *brought))

    async def _mongo(self, collection: str, take: Callable[[Sequence[Record]], None], tables: Sequence[str]) -> None:
        assert self._documents is not None
        if await asyncio.to_thread(self._staging.finished, f"mongo:{collection}"):
            return
        await asyncio.to_thread(self._staging.clear, *tables)
        total = await self._documents.count(collection)
        done = 0
        async for batch in self._documents.read(collection):
            await asyncio.to_thread(take, batch)
            done += len(batch)
            self._progress(collection, done, total)
        await asyncio.to_thread(self._staging.finish, f"mongo:{collection}", done)

    async def _qdrant(self, collection: str, tables: Sequence[str]) -> None:
        assert self._points is not None
        if await asyncio.to_thread(self._staging.finished, f"qdrant:{collection}"):
            return
        await asyncio.to_thread(self._staging.clear, *tables)
        total = next((each.count for each in await self._points.collections() if each.name == collection), None)
        done = 0
        async for batch in self._points.read(collection):
            await asyncio.to_thread(self._take_points, batch)
            done += len(batch)
            self._progress(collection, done, total)
        await asyncio.to_thread(self._staging.finish, f"qdrant:{collection}", done)

    # -- records

    def _take_documents(self, batch: Sequence[Record]) -> None:
        documents, chunks, problems = [], [], []
        names = self._mapping.chunks
        for record in batch:
            id = fields.key(fields.find(record, self._mapping.documents.id))
            if not id:
                problems.append(("document_without_id", fields.key(record.get("_id")) or repr(record)[:80]))
                continue
            documents.append(self._document(id, record, problems))
            if names.source == "documents":
                listed = fields.find(record, names.within)
                for place, each in enumerate(listed if isinstance(listed, list) else ()):
                    part = each if isinstance(each, dict) else {names.text: each}
                    own = fields.key(fields.find(part, names.id)) if names.id else ""
                    chunks += self._chunk(own or f"{id}#{place}", id, part, place, problems)
        self._staging.add(documents, chunks, problems=problems)

    def _take_chunks(self, batch: Sequence[Record]) -> None:
        chunks: list[StagedChunk] = []
        problems: list[tuple[str, str]] = []
        documents = []
        for record in batch:
            id = fields.key(fields.find(record, self._mapping.chunks.id or "_id"))
            if found := self._owned(id, record, problems):
                chunks += found
                documents += self._made_of(found[0], record, problems)
        self._staging.add(chunks=chunks, problems=problems)
        self._staging.add_unknown(documents)

    def _take_points(self, batch: Sequence[Point]) -> None:
        chunks: list[StagedChunk] = []
        vectors: list[tuple[str, int, bytes]] = []
        problems: list[tuple[str, str]] = []
        documents = []
        names = self._mapping.vectors
        for point in batch:
            id = fields.key(fields.find(point.payload, names.chunk)) if names.chunk else point.id
            if not id:
                problems.append(("point_without_chunk", point.id))
                continue
            if self._mapping.chunks.source == "qdrant":
                own = self._mapping.chunks.id
                id = (fields.key(fields.find(point.payload, own)) if own else "") or id
                if found := self._owned(id, point.payload, problems):
                    chunks += found
                    documents += self._made_of(found[0], point.payload, problems)
            vectors += _vector(id, point, names.name, problems)
        self._staging.add(chunks=chunks, vectors=vectors, problems=problems)
        self._staging.add_unknown(documents)

    def _owned(self, id: str, record: Record, problems: list[tuple[str, str]]) -> list[StagedChunk]:
        """A passage that says itself whose it is."""
        names = self._mapping.chunks
        owner = fields.key(fields.find(record, names.document))
        if not owner:
            problems.append(("chunk_without_document", id or repr(record)[:80]))
            return []
        self._place += 1
        return self._chunk(id, owner, record, None if names.order else self._place, problems)

    def _chunk(
        self, id: str, document: str, record: Record, place: float | None, problems: list[tuple[str, str]]
    ) -> list[StagedChunk]:
        names = self._mapping.chunks
        value = fields.find(record, names.text)
        text = fields.text(value)
        if not text.strip():
            problems.append(("chunk_empty", id))
            return []
        if len(text) > MAX_CHUNK:
            problems.append(("chunk_too_long", id))
            return []
        if fields.broken(value):
            problems.append(("text_cleaned", id))
        if names.order:
            place = fields.number(fields.find(record, names.order))
            if place is None:
                problems.append(("chunk_without_order", id))
        page = fields.page(fields.find(record, names.page), names.first_page)
        return [StagedChunk(id, document, text, place, page, _headings(fields.find(record, names.headings)))]

    def _made_of(self, chunk: StagedChunk, record: Record, problems: list[tuple[str, str]]) -> list[StagedDocument]:
        """Without a collection of documents, what a passage says of its own."""
        return [] if self._mapping.documents.collection else [self._document(chunk.document, record, problems)]

    def _document(self, id: str, record: Record, problems: list[tuple[str, str]]) -> StagedDocument:
        names = self._mapping.documents
        own_text = names.text if names.collection else ""  # a passage's text is not its document's
        value = fields.find(record, own_text)
        text = fields.text(value)
        if len(text) > MAX_TEXT:
            problems.append(("document_too_long", id))
            text = ""
        if fields.broken(value):
            problems.append(("text_cleaned", id))
        return StagedDocument(
            id=id,
            title=fields.text(fields.find(record, names.title)).strip(),
            name=fields.text(fields.find(record, names.name)).strip(),
            text=text,
            url=fields.text(fields.find(record, names.url)).strip(),
            created=fields.seconds(fields.find(record, names.created)),
            collection=fields.text(fields.find(record, names.into)).strip() or self._mapping.collection,
            tags=tuple(dict.fromkeys(word for path in names.tags for word in fields.words(fields.find(record, path)))),
            metadata=self._metadata(record, own_text),
        )

    def _metadata(self, record: Record, own_text: str) -> dict[str, Any]:
        names = self._mapping.documents
        if "*" not in names.metadata:
            return {path: fields.plain(fields.find(record, path)) for path in names.metadata}
        chunks = self._mapping.chunks
        without = {own_text, chunks.within if chunks.source == "documents" else ""}
        if not names.collection:  # what is the passage's own
            without |= {chunks.text, chunks.order, chunks.page, chunks.headings, chunks.id}
        return {str(name): fields.plain(value) for name, value in record.items() if name not in without}


def _headings(value: Any) -> tuple[str, ...]:
    parts = _HEADING.split(value) if isinstance(value, str) else fields.words(value)
    return tuple(part.strip() for part in map(fields.clean, parts) if part.strip())[:MAX_HEADINGS]


def _vector(id: str, point: Point, name: str, problems: list[tuple[str, str]]) -> list[tuple[str, int, bytes]]:
    vector = point.vectors.get(name)
    if vector is None:
        problems.append(("vector_missing_name", point.id))
        return []
    try:
        packed = array("f", vector)
    except (TypeError, OverflowError):
        problems.append(("vector_not_numbers", point.id))
        return []
    total = sum(each * each for each in packed)
    if not packed or not 0 < total < float("inf"):  # nothing, all zeros, not a number, or without bound
        problems.append(("vector_without_direction", point.id))
        return []
    return [(id, len(packed), _little(packed))]


def _little(packed: "array[float]") -> bytes:
    import sys

    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
