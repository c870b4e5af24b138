"""What the library of documents shows besides `Document`."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from terrace.knowledge.base import Document

DEFAULT_COLLECTION = "default"


@dataclass(frozen=True, slots=True)
class Collection:
    id: str
    name: str
    documents: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Tag:
    name: str
    documents: int


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it is kept: `text == document text[start:end]`."""

    id: str
    ordinal: int
    start: int
    end: int
    page: int | None
    headings: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class BatchItem:
    """What became of one file of a batch: a document, or an error as {kind, code, message}."""

    name: str
    document: Document | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TextSlice:
    """`text` is characters [start, end) of `total`; `page` holds the first of them."""

    text: str
    start: int
    end: int
    total: int
    page: int | None


@dataclass(slots=True)
class Labels:
    """Where uploads go. It may be filled in while the files arrive, until the last is in."""

    collection: str = DEFAULT_COLLECTION  # id or name; made when there is none
    tags: list[str] = field(default_factory=list)
