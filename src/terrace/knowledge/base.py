"""The words of the knowledge room. Spans are half-open [start, end) in characters of a document's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:  # the subprocesses that parse import this module and need no database
    from sqlmodel import Session

    from terrace.types import Scope

DocumentState = Literal["queued", "parsing", "embedding", "ready", "failed"]


class Span(NamedTuple):
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page (PDF), slide (PPTX), sheet (XLSX) or chapter (EPUB): its number from 1 and its span of the text."""

    number: int
    span: Span


@dataclass(frozen=True, slots=True)
class Block:
    """A structural piece of the text, in order, not overlapping. Headings carry a level from 1."""

    kind: Literal["heading", "paragraph", "list", "table", "code"]
    span: Span
    level: int = 0


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser makes of a file: normalised text (NFKC, \\n ends lines) and its structure."""

    text: str
    media_type: str
    title: str = ""
    pages: tuple[Page, ...] = ()
    blocks: tuple[Block, ...] = ()
    warnings: tuple[str, ...] = ()  # such as "3 pages hold only images"
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece to index: `text == document.text[span.start:span.end]`, always."""

    ordinal: int
    span: Span
    text: str
    page: int | None  # of its first character
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """What a search may see. Empty means no restriction."""

    collections: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()  # any of them
    documents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk as the index takes it."""

    id: str  # chk_...
    document_id: str
    collection_id: str
    title: str
    chunk: Chunk


class Scored(NamedTuple):
    number: int  # of the chunk
    score: float  # 0..1 after fusion
    text_score: float | None = None  # BM25
    vector_score: float | None = None  # cosine


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result as the API shows it."""

    chunk_id: str
    document_id: str
    document_name: str
    title: str
    collection: str
    text: str
    score: float
    text_score: float | None
    vector_score: float | None
    page: int | None
    headings: tuple[str, ...]
    start: int
    end: int
    url: str  # opens the page or text with the span marked
    source_url: str | None = None  # where it was found on the web


@dataclass(frozen=True, slots=True)
class Document:
    id: str
    name: str
    title: str
    collection: str
    tags: tuple[str, ...]
    media_type: str
    bytes: int
    sha256: str
    state: DocumentState
    searchable: Literal["no", "words", "meaning"]
    pages: int | None
    chunks: int
    characters: int
    warnings: tuple[str, ...]
    error: dict[str, Any] | None  # {kind, code, message}
    job_id: str | None
    created_at: datetime
    updated_at: datetime
    duplicate: bool = False  # this upload was recognised as one already here
    source_url: str | None = None  # where a source found it on the web


Ranking = Callable[["Session"], list[Scored]]
"""Called in a read: the k best of what was retrieved, by fusion."""


class Index(Protocol):
    """Full text and vectors beside the chunks, in the same database and the same transactions.

    Methods taking a `Session` are sync and run inside `Database.write` / `read`. What a filter lets through may be kept
    until a collection's version grows (`terrace.knowledge.store.changed`): whoever changes it says so there.
    """

    def add_text(self, session: Session, scope: Scope, chunks: Sequence[IndexedChunk]) -> None:
        """Searchable by words once this commits."""

    def add_vectors(self, session: Session, scope: Scope, model: str, chunk_ids: Sequence[str], vectors: Any) -> None:
        """`vectors`: float32 (len(chunk_ids), dimensions), unit rows. Searchable by meaning once this commits."""

    def known_vectors(self, session: Session, scope: Scope, model: str, text_sha256s: Sequence[str]) -> dict[str, Any]:
        """Vectors already kept for chunks of these `text_sha256`, so that unchanged text is not embedded again.
        Ask before `remove_document`, which forgets them."""

    def remove_document(self, session: Session, scope: Scope, document_id: str) -> None:
        """Text and vectors of all its chunks. Call it while the chunk rows are still there."""

    async def retrieve(
        self, scope: Scope, query: str, vector: Any | None, *, model: str | None, k: int, filter: Filter
    ) -> Ranking:
        """What words and meaning bring, to be ranked. `vector` is the question's, or an awaitable of it, and words are
        looked for meanwhile; by words alone where it is, or turns out to be, None. An empty `query` goes by meaning
        alone. What is deleted meanwhile, or passes the filter no more, may be found."""

    async def search(
        self, scope: Scope, query: str, vector: Any | None, *, model: str | None, k: int, filter: Filter
    ) -> list[Scored]:
        """Retrieved and ranked; `vector` is at hand."""

    def counts(self, session: Session, scope: Scope) -> dict[str, int]:
        """{chunks, vectors} for health and the doctor."""
