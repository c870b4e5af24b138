"""The words of the analysis room.

saving -> queued -> processing -> converted -> answered -> succeeded
                         (any of them) -> failed | cancelled
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # the subprocesses that draw import this module and need no database
    from sqlmodel import Session

    from terrace.models.base import ChatRequest, Delta, Provider
    from terrace.telemetry.usage import Line
    from terrace.types import Scope

AnalysisState = Literal["saving", "queued", "processing", "converted", "answered", "succeeded", "failed", "cancelled"]
Way = Literal["vision", "ocr", "text", "quote"]
PartKind = Literal["page", "picture", "text"]


@dataclass(frozen=True, slots=True)
class Wish:
    """How a file shall be analysed, as the caller says it. `key` is their Idempotency-Key."""

    type: str = "free"
    prompt: str = ""
    schema: Any = None
    model: str | None = None
    webhook: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class PageNote:
    """What there is to say about a page: the model's or the reader's note, or why it could not be looked at."""

    number: int
    label: str  # "Page 3", "Picture on slide 2"
    note: str = ""
    error: str | None = None
    picture: bool = False  # GET .../pages/<number>.png shows it


@dataclass(frozen=True, slots=True)
class Result:
    """`fields` fit the schema, or are null; what the model said instead is `rejected` then, and a warning says why."""

    markdown: str
    fields: Any | None = None
    pages: tuple[PageNote, ...] = ()
    warnings: tuple[str, ...] = ()
    rejected: Any | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """As the API shows it. In lists `result` is left out."""

    id: str
    name: str
    type: str
    media_type: str
    bytes: int
    state: AnalysisState
    pages: int | None
    pages_done: int
    way: Way | None
    why: str  # it went this way
    model: str | None
    result: dict[str, Any] | None
    cost: float | None  # dollars; None while it is not over, or where nobody knows the price
    usage: dict[str, int] | None
    error: dict[str, Any] | None  # {kind, code, message}
    job_id: str | None
    created_at: datetime
    finished_at: datetime | None


class Books(Protocol):
    """Who keeps account of the calls; `terrace.telemetry.usage.UsageReport` does."""

    async def of_job(self, scope: Scope, job_id: str, since: float) -> Line: ...


class Choice(Protocol):
    """A model that a name means; `terrace.models.wrappers.Choice` is one."""

    @property
    def id(self) -> str: ...
    @property
    def provider(self) -> Provider: ...
    @property
    def kind(self) -> str: ...


class Answer(Protocol):
    """A running answer. `model` is certain once the first delta is there."""

    @property
    def model(self) -> str: ...
    def __aiter__(self) -> AsyncIterator[Delta]: ...
    async def __anext__(self) -> Delta: ...
    async def aclose(self) -> None: ...


class Models(Protocol):
    """What is asked of the model room; `terrace.models.service.Models` is one."""

    async def resolve(self, model: str | None = None, scope: Scope = ...) -> Choice: ...

    async def sees(self, model: str | None = None, scope: Scope = ...) -> bool | None: ...

    async def seeing(self, scope: Scope = ...) -> str | None: ...

    async def context_tokens(self, model: str | None = None, scope: Scope = ...) -> int | None: ...

    def stream(self, request: ChatRequest) -> Answer: ...


class Notifier(Protocol):
    """Tells the outside, in the transaction that makes it true; the webhook room is one."""

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None: ...

    def send_to(self, session: Session, scope: Scope, url: str, type: str, data: dict[str, Any]) -> None: ...


class Silent:
    """Where nobody is to be told."""

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None: ...

    def send_to(self, session: Session, scope: Scope, url: str, type: str, data: dict[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file that is looked at by itself: a page, an embedded picture, a stretch of text.

    `source` says where in the file it is: the index of a page or frame, or the name of an archive's member.
    """

    kind: PartKind
    label: str
    source: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file consists of; `parts` are at most as many as are looked at."""

    parts: Sequence[Part]
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Drawn:
    """A part's picture, or why there is none. `text` is the page's own, where it was asked for."""

    number: int
    image: bytes = b""
    media_type: str = ""
    width: int = 0
    height: int = 0
    text: str = ""
    note: str = ""
    error: str = ""
