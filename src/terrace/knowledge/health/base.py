"""The words of corpus health: kinds of findings, what mends each, and a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from sqlmodel import Session

from terrace.knowledge.base import Index, Scored
from terrace.types import Scope

EXAMPLES = 20  # of each kind


@dataclass(frozen=True, slots=True)
class Kind:
    """`repair` says what mending does; empty where only a person can decide."""

    name: str
    title: str
    repair: str = ""


READ_AGAIN = "They are read again from the stored files."
KINDS: dict[str, Kind] = {
    each.name: each
    for each in (
        Kind("document_failed", "Documents that could not be read", READ_AGAIN),
        Kind("document_stuck", "Documents said to be in progress while no job is at work on them", READ_AGAIN),
        Kind("document_hollow", "Ready documents whose passages are not all there", READ_AGAIN),
        Kind("vectors_missing", "Documents found by words only", "Their passages are embedded by the present model."),
        Kind("vectors_odd", "Vectors of a wrong width", "They are removed, and their documents embedded again."),
        Kind("vectors_left", "Vectors of an embedding model that serves no more", "They are removed."),
        Kind("vectors_orphaned", "Vectors of passages that are gone", "They are removed."),
        Kind("chunks_orphaned", "Passages of documents that are gone", "They are removed."),
        Kind("index_differs", "Passages missing from the full text, or gone but still in it",
             "The full text is made anew from the passages."),
        Kind("blob_orphaned", "Stored files that no document refers to", "They are removed."),
        Kind("blob_missing", "Documents whose file is gone"),
        Kind("text_missing", "Documents whose text is gone", READ_AGAIN),
        Kind("duplicate", "Documents with the very same text as an older one of their collection",
             "The oldest of each stays; the others are deleted."),
        Kind("duplicate_elsewhere", "Documents with the very same text as one of another collection"),
        Kind("duplicate_near", "Documents that say almost the same"),
        Kind("stale", "Documents that their source has not shown for a month"),
        Kind("never_retrieved", "Documents that no search has found for a month"),
    )
}  # fmt: skip
"""In the order they are shown in."""


@dataclass(frozen=True, slots=True)
class Example:
    id: str  # of a document, or the key of a file
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """So many of a kind, and the first of them."""

    kind: str
    count: int
    examples: list[Example]


@dataclass(frozen=True, slots=True)
class Finding:
    """As it is shown."""

    kind: str
    title: str
    count: int
    examples: list[Example]
    repairable: bool
    repair: str


@dataclass(frozen=True, slots=True)
class Report:
    checked_at: datetime
    seconds: float
    documents: int
    chunks: int
    vectors: int
    findings: list[Finding]
    notes: list[str]  # what was left out, and why


@dataclass(frozen=True, slots=True)
class Past:
    checked_at: datetime
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Condition:
    """`report` is None before the first check; `job_id` is a check or repair that goes on."""

    report: Report | None
    history: Sequence[Past]
    job_id: str | None


class Strays(NamedTuple):
    """What an index keeps that it should not, by tenant: counts."""

    odd: int  # vectors of another width than most of their model
    left: int  # vectors of models that serve no more
    orphaned: int  # vectors without a passage
    extra: int  # texts without a passage
    missing: int  # passages without a text


class InspectedIndex(Index, Protocol):
    """An index whose own tables can be looked through and mended."""

    def strays(self, session: Session, scope: Scope, serving: Sequence[str] | None) -> Strays:
        """`serving` are the names of the models whose vectors are wanted; None: of all."""

    def remove_vectors(
        self, session: Session, scope: Scope, serving: Sequence[str] | None, kind: str, limit: int
    ) -> list[str]:
        """Up to `limit` strays of a kind (odd, left, orphaned); the documents they were of, one for each."""

    def mend_text(self, session: Session, scope: Scope, limit: int, after: int = 0) -> int:
        """Put in up to `limit` passages that the full text lacks, of those after the number `after`; the last one's
        number, 0 where there was none. Begun at 0, what it should not hold is taken out first."""

    def search_exactly(
        self, session: Session, scope: Scope, queries: Sequence[str], vectors_: Any | None, *, model: str | None, k: int
    ) -> list[list[Scored]]:
        """What each query, and the vector at its place, finds. Looks at every vector and every passage with a word of
        the query, so that every database finds the same. Slow; for comparing two of them. Vectors of one width."""

    def vectors_after(
        self, session: Session, scope: Scope, model: str, after: int, limit: int
    ) -> tuple[int, list[str], Any]:
        """A piece of them: the place to go on from, the document of each, and float16 (n, dimensions)."""

    async def close(self) -> None:
        """Leave what goes on beside the searches; the database is still open."""
