"""The words of the webhooks room: what rooms above emit with, what an endpoint and a delivery are."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from sqlmodel import Session

from terrace.types import Scope

DeliveryState = Literal["queued", "delivered", "dead"]


class Emitter(Protocol):
    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None:
        """Inside the transaction that makes it true: tell every endpoint of the tenant that wants this `type`.

        `type` is one of `events.EVENTS`. `data` has ids, names, states and counts; no secrets, no long texts.
        """


class Silent:
    """Tells nobody."""

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None:
        """Nothing."""


class Sealer(Protocol):
    """Keeps what we must be able to use again; the accounts room's secret is one."""

    def seal(self, purpose: str, text: str) -> str: ...
    def unseal(self, purpose: str, sealed: str) -> str:
        """Raises Invalid when it was sealed with another secret."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    id: str
    url: str
    description: str
    events: tuple[str, ...]  # types, families such as `campaign.*`; none: all
    enabled: bool
    disabled_reason: str | None  # why it was switched off by us
    failing_since: datetime | None  # nothing has reached it since then
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    at: datetime
    status: int | None  # None: there was no answer
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint. `event_id` is the receiver's `webhook-id`, the same at every attempt."""

    id: str
    event_id: str
    type: str
    url: str  # without its query
    state: DeliveryState
    attempts: int
    status: int | None  # of the last answer
    error: str | None
    duration: float | None  # seconds of the last attempt
    created_at: datetime
    last_at: datetime | None
    next_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryDetail:
    delivery: Delivery
    body: dict[str, Any]  # what was sent
    answer: str | None  # the first 2 kB of the last one
    tries: tuple[Attempt, ...]  # the latest last
