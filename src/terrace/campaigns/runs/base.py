"""The words of campaigns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from sqlmodel import Session

from terrace.campaigns.templates.drafts import Mode
from terrace.knowledge.base import Filter, Hit, Page
from terrace.models.base import ChatRequest, Deltas
from terrace.telemetry.prices import Price
from terrace.types import Scope

State = Literal["draft", "scheduled", "preparing", "running", "paused", "finished", "cancelled", "failed"]
MessageState = Literal["waiting", "writing", "done", "failed", "skipped"]

OVER: frozenset[str] = frozenset({"finished", "cancelled", "failed"})

RUN = "campaign.run"
WRITE = "campaign.message"
PREVIEW = "campaign.preview"
PRIORITY = -100  # whoever waits for an answer comes first


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Counts:
    """`waiting` are not begun; `writing` are at work now."""

    total: int
    waiting: int
    writing: int
    done: int
    failed: int
    skipped: int
    approved: int


@dataclass(frozen=True, slots=True)
class Campaign:
    """Money is in dollars; `cost` holds what previews came to, and not the `unpriced` calls. `eta` is in seconds."""

    id: str
    name: str
    state: State
    reason: Reason | None
    list_id: str
    template_id: str
    template_version: int
    mode: Mode
    model: str
    options: dict[str, Any]
    collection: str | None
    budget: float | None
    concurrency: int
    start_at: datetime | None
    webhook: str | None
    counts: Counts
    cost: float
    unpriced: int
    input_tokens: int
    output_tokens: int
    per_second: float | None
    eta: float | None
    job_id: str | None
    preview: dict[str, Any] | None
    created_by: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whom a message is for, as they are now; gone: all but the id is empty."""

    id: str
    key: str
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    campaign_id: str
    contact: Addressee
    state: MessageState
    text: str | None
    sources: list[dict[str, Any]]
    model: str | None
    error: Reason | None
    cost: float  # dollars
    input_tokens: int
    output_tokens: int
    edited_at: datetime | None
    approved_at: datetime | None
    finished_at: datetime | None
    job_id: str | None


@dataclass(frozen=True, slots=True)
class Options:
    """How messages are written. `marks` keeps the numbers of cited sources in the text; `incomplete` says what becomes
    of contacts that lack a value: the start is refused, or they are skipped."""

    max_tokens: int = 1024
    temperature: float | None = None
    marks: bool = False
    incomplete: Literal["refuse", "skip"] = "refuse"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A campaign to be made."""

    list: str  # id or name
    template: str  # id or name
    version: int | None = None  # the newest
    name: str = ""
    model: str | None = None
    options: Options = field(default_factory=Options)
    collection: str | None = None
    budget: float | None = None  # dollars
    concurrency: int | None = None
    start_at: float | None = None
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a campaign's feed. `seq` is what a reader goes on from; None says nothing new about that."""

    type: Literal["message", "progress", "state", "done"]
    data: dict[str, Any]
    seq: int | None = None


# -- what campaigns need of other rooms


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Choice(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def provider(self) -> Named: ...
    @property
    def kind(self) -> str: ...


class Answer(Deltas, Protocol):
    @property
    def model(self) -> str: ...


class Writers(Protocol):
    """Models: `terrace.models.service.Models` is one."""

    async def resolve(self, model: str | None, scope: Scope) -> Choice: ...
    async def context_tokens(self, model: str | None, scope: Scope) -> int | None: ...
    def stream(self, request: ChatRequest) -> Answer: ...


class Retriever(Protocol):
    """Documents: `terrace.chat.library.Library` is one."""

    async def search(self, scope: Scope, query: str, *, k: int, filter: Filter) -> Sequence[Hit]: ...
    async def pages(self, scope: Scope, hits: Sequence[Hit]) -> Mapping[str, Sequence[Page]]: ...


class PriceList(Protocol):
    def of(self, kind: str, provider: str, model: str) -> Price | None: ...


class Emitter(Protocol):
    """Whoever tells others: `terrace.webhooks` has one."""

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None: ...
    def send_to(self, session: Session, scope: Scope, url: str, type: str, data: dict[str, Any]) -> None: ...


class Silent:
    """Tells nobody."""

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None: ...

    def send_to(self, session: Session, scope: Scope, url: str, type: str, data: dict[str, Any]) -> None: ...
