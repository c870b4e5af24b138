"""The words of the schedules room."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from sqlmodel import Session

from terrace.types import Scope

RunState = Literal["running", "succeeded", "failed", "cancelled", "skipped"]


@dataclass(frozen=True, slots=True)
class Action:
    """What a schedule may start; assembly registers each in a line.

    `start` puts in a job in the transaction that claims the due time, and returns the job's id. What it raises stops
    the schedule where trying again cannot help (Invalid, Missing, Denied), and else is noted until the next time.
    `needs` names what the payload holds, texts all; `check`, when a schedule is made, raises what is wrong with it.
    """

    name: str  # such as `sources.run`
    title: str
    start: Callable[[Session, Scope, dict[str, Any]], str]
    needs: tuple[str, ...] = ()
    check: Callable[[Session, Scope, dict[str, Any]], None] | None = None
    permission: str = ""  # what people need to schedule it, besides scheduling at all


@dataclass(frozen=True, slots=True)
class Run:
    id: str  # run_...
    due_at: datetime
    started_at: datetime
    finished_at: datetime | None
    state: RunState
    job_id: str | None
    note: str  # why it was skipped or failed
    by_hand: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    id: str  # sch_...
    name: str
    action: str
    payload: dict[str, Any]
    cron: str | None
    every: int | None  # seconds
    timezone: str
    sentence: str  # when it runs, in words
    enabled: bool
    problem: str | None  # why it was stopped
    built_in: bool
    next_at: datetime | None
    last_run: Run | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A schedule every installation has. It lies in the tenant `default`, is made once, and may be paused or moved."""

    name: str
    action: str
    every: int  # seconds


class Emitter(Protocol):
    """`terrace.webhooks.service.Webhooks` is one."""

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None:
        """Inside the caller's transaction."""


class Silent:
    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None:
        pass
