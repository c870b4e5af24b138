"""The words of sources: what a person asks for, what is shown, and what a run says it did."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from terrace.types import Scope

Kind = Literal["folder", "url", "site", "feed"]
Outcome = Literal["found", "added", "changed", "unchanged", "removed", "failed", "skipped"]

RUN = "source.run"
ACTION = "sources.run"
MAX_FAILURES = 100  # told one by one in a report


@dataclass(frozen=True, slots=True)
class Options:
    """`include` and `exclude` are patterns such as `**/*.pdf`, of a path in the folder or on the site."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    depth: int | None = None  # links followed from the first page; None takes the settings'
    pages: int | None = None  # pages brought at most; None takes the settings'


@dataclass(frozen=True, slots=True)
class NewSource:
    kind: Kind
    location: str
    name: str = ""
    collection: str = "default"
    tags: tuple[str, ...] = ()
    options: Options = Options()
    watch: bool = False
    every: int | None = None  # seconds
    cron: str | None = None
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Failure:
    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did. `complete` says that all there is was seen; `needs_confirm` counts what waits for a yes."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    skipped: int = 0
    complete: bool = True
    needs_confirm: int = 0
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None  # why the run itself ended early


@dataclass(frozen=True, slots=True)
class Source:
    id: str
    kind: Kind
    name: str
    location: str
    collection: str
    tags: tuple[str, ...]
    options: Options
    watch: bool
    schedule_id: str | None
    running: bool
    job_id: str | None  # of the last run
    report: Report | None
    documents: int
    ran_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Item:
    """`document_state` and `error` are the document's, which is read after the run brought it."""

    key: str
    outcome: Outcome
    reason: str
    document_id: str | None
    owned: bool
    document_state: str | None
    error: dict[str, Any] | None
    checked_at: datetime | None
    changed_at: datetime | None


class Scheduling(Protocol):
    """As much of the schedules as a source needs, to be run by itself."""

    async def start(self, scope: Scope, source: Source, wanted: NewSource) -> str:
        """Make the schedule that runs this source; its id. Raises Invalid."""

    async def stop(self, scope: Scope, schedule_id: str) -> None:
        """Remove it, if it is still there."""


class Unscheduled:
    """Where nothing can be scheduled, wanting it is refused."""

    async def start(self, scope: Scope, source: Source, wanted: NewSource) -> str:
        from terrace.errors import Invalid

        raise Invalid("There are no schedules here; run the source by hand.", code="no_schedules")

    async def stop(self, scope: Scope, schedule_id: str) -> None:
        pass


@dataclass(slots=True)
class Notes:
    """What a run wants to say in its report."""

    told: list[str] = field(default_factory=list)
    complete: bool = True
    needs_confirm: int = 0

    def say(self, sentence: str, *, incomplete: bool = False) -> None:
        if sentence not in self.told and len(self.told) < 20:
            self.told.append(sentence)
        if incomplete:
            self.complete = False
