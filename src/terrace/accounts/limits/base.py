"""The words of limits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from sqlmodel import Session

from terrace.telemetry.calls import Demand
from terrace.types import Scope

LimitName = Literal[
    "requests_per_minute",
    "tokens_per_minute",
    "tokens_per_day",
    "money_per_day",  # dollars, in the API; picodollars inside
    "money_per_month",
    "concurrent_requests",  # model calls under way
    "stored_bytes",
    "documents",
]
SubjectKind = Literal["tenant", "user", "key"]


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose limit: a tenant's own, or a user's or key's in it. Written `tenant`, `user:usr_...`, `key:key_...`."""

    tenant: str
    kind: SubjectKind = "tenant"
    id: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, as shown: `used` counts what is reserved too; `resets_in` seconds until all of it is free again."""

    name: LimitName
    value: float
    used: float
    resets_in: float | None
    set_by: str  # a user's id, `terminal` or `local`
    set_at: float


class Hold(Protocol):
    """Tokens and money kept free for a job that is about to be made, so that whoever asks hears at once that there is
    no room. The job's own call takes it over; one never taken is given back after a while."""

    def bind(self, job_id: str) -> None: ...
    def release(self) -> None: ...


class Limits(Protocol):
    """The part that doors and rooms ask; the meter of model calls (`telemetry.calls.Meter`) is the other part."""

    @property
    def shared(self) -> bool:
        """Whether other processes count against the same limits: then only `count_waiting`, `hold_waiting` and the
        meter's `wait` ask them, and doors call these even if nobody is to wait."""

    def count(self, scope: Scope) -> None:
        """One request came in at a door. Raises Limited."""

    async def count_waiting(self, scope: Scope, patience: float) -> None:
        """As `count`, but waits in turn for room."""

    def hold(self, scope: Scope, demand: Demand) -> Hold:
        """Keep room for a job to be. Raises Limited, Denied."""

    async def hold_waiting(self, scope: Scope, demand: Demand) -> Hold:
        """As `hold`, but other processes are asked for room too. Nobody waits for any."""

    def release(self, job_id: str) -> None:
        """The job is over: what was kept for it and not taken over is given back."""

    def admit(self, session: Session, scope: Scope, *, documents: int, bytes: int) -> None:
        """In the transaction that stores them. Raises Limited when the tenant's, user's or key's share is full."""

    async def show(self, subject: Subject) -> list[Limit]: ...

    async def subjects(self, tenant: str) -> list[Subject]:
        """Those of a tenant that have limits, the tenant itself first."""

    async def change(
        self,
        subject: Subject,
        values: Mapping[LimitName, float | None],
        by: str,
        also: Callable[[Session], None] | None = None,
    ) -> list[Limit]:
        """None takes a limit away; `also` runs in the same transaction (the audit log). Raises Invalid, Missing."""
