"""The words of the answer cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from terrace.chat.base import Turn

Kind = Literal["exact", "semantic"]


@dataclass(frozen=True, slots=True)
class Asking:
    """A question with everything its answer depends on, but for the documents themselves."""

    question: str
    model: str  # its public id
    history: Sequence[Turn] = ()
    use_rag: bool | None = None
    collections: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    passages: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to a question goes, known before it is asked. `library` is the state of the documents then: when
    they change while the answer is written, it is stale at once."""

    asking: Asking
    own: str  # the context of what is one person's
    shared: str | None  # and of what every member may be given
    library: str
    vector: bytes | None = None  # of the question, float32
    embedder: str | None = None

    @property
    def contexts(self) -> tuple[str, ...]:
        return (self.own,) if self.shared is None else (self.own, self.shared)


@dataclass(frozen=True, slots=True)
class Written:
    """An answer as a model gave it, and what that came to."""

    response: str
    sources: list[dict[str, Any]]
    model: str
    input_tokens: int
    output_tokens: int
    cost: int | None = None  # picodollars; None when nobody knows the price


@dataclass(frozen=True, slots=True)
class Found:
    """An answer given before."""

    key: str
    kind: Kind
    answer: Written
    written_at: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question that was answered, and may mean the same as another."""

    key: str
    question: str
    vector: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """What the cache holds for a tenant, and what it has saved it. Money in dollars."""

    entries: int
    hits: int
    exact_hits: int
    semantic_hits: int
    saved_tokens: int
    saved_money: float
    oldest: datetime | None
    newest: datetime | None
