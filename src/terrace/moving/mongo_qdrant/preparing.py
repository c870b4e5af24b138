"""A staged document as Terrace will keep it: names made fit, passages in their places, hashes of it all."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from terrace.knowledge import texts
from terrace.knowledge.base import Chunk, Span
from terrace.knowledge.naming import MAX_COLLECTION, MAX_TAG, MAX_TAGS, file_name, tidy
from terrace.moving.mongo_qdrant.binding import bind
from terrace.moving.mongo_qdrant.fitting import units
from terrace.moving.mongo_qdrant.staging import StagedDocument, Whole
from terrace.types import Scope, new_id

MAX_TITLE = 500
MAX_URL = 2000


@dataclass(frozen=True, slots=True)
class Prepared:
    """`vectors` are unit rows of the passages at `embedded`, by their places; the rest have none."""

    source: Whole
    document_id: str
    name: str
    title: str
    collection: str
    url: str | None
    tags: tuple[str, ...]
    note: str
    original: bytes
    sha256: str
    text: str
    text_width: int
    text_data: bytes
    blob: str
    text_blob: str
    chunks: tuple[Chunk, ...]
    pages: tuple[tuple[int, int, int], ...]  # number, start, end
    embedded: tuple[int, ...]
    vectors: Any
    content: str


def prepare(scope: Scope, whole: Whole) -> Prepared:
    document = whole.document
    text, spans = bind(document.text, [each.text for each in whole.chunks])
    chunks = tuple(
        Chunk(place, Span(*span), each.text, each.page, each.headings)
        for place, (each, span) in enumerate(zip(whole.chunks, spans, strict=True))
    )
    original = (document.text or text).encode()
    tags, cut = _tags(document.tags)
    title = tidy(document.title)[:MAX_TITLE]
    name = file_name(document.name or title or document.id)
    url = document.url if document.url.startswith(("http://", "https://")) and len(document.url) <= MAX_URL else None
    document_id = new_id("doc")
    width, data = texts.encode(text)
    embedded = tuple(place for place, vector in enumerate(whole.vectors) if vector is not None)
    digest = sha256(original).hexdigest()
    return Prepared(
        source=whole,
        document_id=document_id,
        name=name,
        title=title,
        collection=collection_of(document),
        url=url,
        tags=tags,
        note=cut,
        original=original,
        sha256=digest,
        text=text,
        text_width=width,
        text_data=data,
        blob=texts.original_key(scope.tenant, document_id),
        text_blob=texts.text_key(scope.tenant, document_id, width),
        chunks=chunks,
        pages=_pages(chunks, len(text)),
        embedded=embedded,
        vectors=units([vector for vector in whole.vectors if vector is not None]) if embedded else None,
        content=content(digest, url, tags, [(each.text, each.page, each.headings) for each in chunks]),
    )


def content(digest: str, url: str | None, tags: Sequence[str], chunks: Sequence[tuple[Any, ...]]) -> str:
    """What a document is, in one hash: its file, where it is from, its tags, and its passages in their order."""
    return sha256(msgspec.json.encode([digest, url, sorted(tags), chunks])).hexdigest()


def collection_of(document: StagedDocument) -> str:
    name = tidy(document.collection)[:MAX_COLLECTION] or "Imported"
    return f"Imported {name}"[:MAX_COLLECTION] if name.startswith("col_") else name  # that is how ids begin


def _tags(given: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """As `naming.tag_names` makes them, cut to what a document may have; and a note when that took something."""
    tags = tuple(dict.fromkeys(tag for each in given if (tag := tidy(each).casefold())))
    kept = tuple(dict.fromkeys(tag[:MAX_TAG].strip() for tag in tags))[:MAX_TAGS]
    cut = len(kept) < len(tags) or any(len(tag) > MAX_TAG for tag in tags)
    return kept, f"Of its {len(tags)} tags some were cut or left out; its metadata has them all." if cut else ""


def _pages(chunks: Sequence[Chunk], length: int) -> tuple[tuple[int, int, int], ...]:
    """Where pages begin, as far as passages tell; nothing when they don't grow."""
    starts: dict[int, int] = {}
    for chunk in chunks:
        if chunk.page is not None:
            starts.setdefault(chunk.page, chunk.span.start)
    numbers = list(starts)
    if not numbers or numbers != sorted(numbers):
        return ()
    ends = [*list(starts.values())[1:], length]
    return tuple((number, starts[number], end) for number, end in zip(numbers, ends, strict=True))
