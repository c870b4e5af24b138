"""The words of the job room: what a job is, what a handler gets, what an engine does.

queued ──> running ──> succeeded | failed | cancelled
  ^  └─ waiting (delayed, backing off, or for children) ─┘
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from sqlmodel import Session

from terrace.errors import Conflict
from terrace.types import Scope

State = Literal["queued", "waiting", "running", "succeeded", "failed", "cancelled"]
Lane = Literal["io", "cpu"]
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
RESUMING_CRASHES = 20  # of a kind that goes on where it was and has what may kill a process done in another


class LostLease(Conflict):
    """This attempt no longer owns its job: another worker has it, or it was ended. Nothing was written."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"The job {job_id} is no longer ours to write to.", code="lost_lease")


class EventId(NamedTuple):
    """Where a client is in a job's events; on the wire `attempt-seq`."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's append-only log. `state`, `progress`, `reset` and `done` come from the engine."""

    id: EventId
    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    done: float
    total: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class JobError:
    kind: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    kind: str
    state: State
    priority: int
    attempt: int
    failures: int
    crashes: int
    created_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress | None
    result: dict[str, Any] | None
    error: JobError | None
    dead: bool  # failed for good: retries are used up, or retrying cannot help
    cancel_requested: bool
    parent_id: str | None
    children: dict[str, int] | None  # state -> how many, for a parent
    user: str | None
    payload: dict[str, Any] = field(default_factory=dict)
    position: int | None = None  # while queued: how many of the same lane are ahead
    expected_wait: float | None = None  # seconds, while queued
    abridged: bool = False  # in lists: a payload or result too long for them is left out


@dataclass(frozen=True, slots=True)
class Done:
    """A handler's result together with work that belongs in the very transaction that marks the job succeeded: a
    `commit` of its own, or something `kept` that its kind's `keep` writes down for many jobs at once."""

    result: dict[str, Any]
    commit: Callable[[Session], Any] | None = None
    kept: Any = None


class Kept(NamedTuple):
    """What one of the jobs that end together leaves to be written."""

    scope: Scope
    job_id: str
    value: Any  # `Done.kept`


class Context(Protocol):
    """What a handler may do. Every write is fenced: once this attempt lost its lease, it raises LostLease."""

    @property
    def job_id(self) -> str: ...
    @property
    def scope(self) -> Scope: ...
    @property
    def attempt(self) -> int: ...
    @property
    def payload(self) -> dict[str, Any]: ...

    def emit(self, type: str, data: dict[str, Any]) -> None:
        """Append an event. The first goes out at once, the rest in groups of some 25 ms; stored, then shown."""

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Say how far we are (kept on the row, and an event; coalesced)."""

    async def write(self, work: Callable[[Session], Any]) -> Any:
        """Run `work` in a transaction that first checks the fence; pending events are flushed with it."""

    async def children(self, kind: str, payloads: list[dict[str, Any]]) -> list[str]:
        """Enqueue children once, whatever attempt this is, and return their ids.

        A handler that asks several times must ask in the same order on each attempt. When it returns, its job
        waits for the children and then ends with their counts added to its result.
        """


Handler = Callable[[Context], Awaitable["Done | dict[str, Any] | None"]]
Keep = Callable[[Session, Sequence[Kept]], None]
OnDead = Callable[[Session, Scope, Job], None]


@dataclass(frozen=True, slots=True)
class JobKind:
    """Declared by a room in its `tasks.py`, registered by assembly.

    `handler` is cancelled (asyncio) when the job is cancelled, loses its lease or exceeds `timeout` seconds.
    An error whose `retryable` is false makes the job a dead letter at once; any other exception is retried.
    `on_end` runs in the transaction that ends the job for good in `failed` or `cancelled`, so that the room's
    own rows say so too; `on_retry` in the one that puts it back in the queue, and by a TerraceError, raised before it
    writes, refuses that. A kind without a handler is a parent that merely waits for its children. One whose room
    `concludes` it may have any number of children, enqueued a few at a time: they are not counted as each ends, and
    its room says when the last has (`JobService.conclude`). `keep` writes what jobs leave in `Done.kept`, those that
    end at the same time together; when it raises, it is called again for each alone.
    """

    name: str
    handler: Handler | None = None
    lane: Lane = "io"
    timeout: float = 3600.0
    max_failures: int | None = None  # default: settings
    max_crashes: int | None = None
    on_end: OnDead | None = None
    on_retry: OnDead | None = None
    public: bool = False  # may be enqueued by POST /api/jobs
    shared: bool = False  # the whole tenant sees such jobs; others are seen by whom they belong to
    concludes: bool = False
    keep: Keep | None = None


class Jobs(Protocol):
    """What every engine offers. The rows are the truth; an engine only finds and runs them.

    A caller sees their own jobs and those of shared kinds, unless they ask for `everyone`'s of the tenant: what is not
    seen is Missing.
    """

    def kind(self, name: str) -> JobKind:
        """As it was declared. Raises Invalid for what is none."""

    def enqueue(
        self,
        session: Session,
        scope: Scope,
        kind: str,
        payload: dict[str, Any],
        *,
        priority: int = 0,
        delay: float = 0.0,
        idempotency_key: str | None = None,
        parent_id: str | None = None,
    ) -> str:
        """Insert a job inside the caller's transaction and return its id; workers wake after the commit.

        Higher `priority` runs first; `delay` is in seconds. The same (tenant, kind, idempotency_key) returns the
        first job's id; Conflict when its payload differs. Limited when the tenant's queue is full.
        """

    def enqueue_many(
        self,
        session: Session,
        scope: Scope,
        kind: str,
        payloads: Sequence[dict[str, Any]],
        *,
        priority: int = 0,
        delay: float = 0.0,
        parent_id: str | None = None,
    ) -> list[str]:
        """As `enqueue` for many of one kind, in their order, at a fraction of the cost."""

    async def get(self, scope: Scope, job_id: str, *, everyone: bool = False) -> Job:
        """With position and expected wait. Raises Missing."""

    async def list(
        self,
        scope: Scope,
        *,
        state: State | None = None,
        kind: str | None = None,
        parent_id: str | None = None,
        dead: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
        everyone: bool = False,
    ) -> tuple[list[Job], str | None]:
        """Newest first, and the cursor of the next page. Long payloads and results are left out (`abridged`)."""

    async def cancel(self, scope: Scope, job_id: str, *, everyone: bool = False) -> Job:
        """Cancel it and its children; a running one stops at its next await. Final states stay."""

    async def retry(self, scope: Scope, job_id: str, *, everyone: bool = False) -> Job:
        """Put a failed or cancelled job back in the queue (Conflict otherwise, or what `on_retry` raises)."""

    def events(
        self, scope: Scope, job_id: str, after: EventId | None = None, *, everyone: bool = False
    ) -> AsyncIterator[JobEvent]:
        """Replay what came after `after`, then follow; ends after the `done` event of the last attempt.

        Raises Missing at the first step when there is no such job.
        """

    def changes(self, scope: Scope, *, everyone: bool = False) -> AsyncIterator[Job]:
        """Jobs as they change from now on, coalesced: each as it is, not every state it went through."""

    async def wait(self, scope: Scope, job_id: str, timeout: float | None = None, *, everyone: bool = False) -> Job:
        """Until it is final (or TimeoutError)."""
