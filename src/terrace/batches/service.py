"""Batches: made, looked at, cancelled. The job in `running` does the work."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlmodel import Session

from terrace.batches import store
from terrace.batches.base import ENDPOINTS, FINAL, Batch, LineError
from terrace.batches.files import check_expiry
from terrace.batches.running import House, Run, announce
from terrace.errors import Conflict, Invalid, Limited
from terrace.jobs.base import RESUMING_CRASHES, Context, Job, JobKind, Jobs
from terrace.storage import after_commit
from terrace.types import Scope

RUN = "batch.run"
PRIORITY = -100  # below everything that somebody waits for
MAX_OPEN = 50  # batches of a tenant that are not over: each is a running job
MOST = 100  # batches in one list
METADATA = 16  # entries
METADATA_KEY, METADATA_VALUE = 64, 512  # characters
SECONDS = {"m": 60, "h": 3600, "d": 86_400}
LONGEST_WINDOW = 7 * 86_400
_WINDOW = re.compile(r"([1-9][0-9]{0,4})([mhd])")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A batch as it is asked for. `output_seconds`: how long its files are kept; None keeps them."""

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: Mapping[str, str] | None = None
    output_seconds: int | None = None


class Batches:
    def __init__(self, house: House, jobs: Jobs) -> None:
        self._house = house
        self._database = house.database
        self._jobs = jobs
        self._stops: dict[str, asyncio.Event] = {}  # of the batches that this process runs

    @property
    def kind(self) -> JobKind:
        """What assembly registers."""
        timeout = LONGEST_WINDOW + 86_400.0
        return JobKind(
            RUN, self._run, timeout=timeout, max_crashes=RESUMING_CRASHES, on_end=self._job_ended, on_retry=self._again
        )

    async def create(self, scope: Scope, wanted: Wanted) -> Batch:
        """Raises Invalid, Missing (the file), Limited (too many are open)."""
        window = _checked(wanted)
        return await self._database.write(self._create, scope, wanted, window)

    def _create(self, session: Session, scope: Scope, wanted: Wanted, window: int) -> Batch:
        if store.file(session, scope, wanted.input_file_id).purpose != "batch":
            raise Invalid(
                "The input file must have the purpose `batch`.", code="invalid_purpose", param="input_file_id"
            )
        if store.count_open(session, scope) >= MAX_OPEN:
            message = f"{MAX_OPEN} batches are open already, which is the most. Wait for one to end, or cancel one."
            raise Limited(message, code="too_many_batches", retry_after=60)
        row = store.add_batch(
            session, scope,
            endpoint=wanted.endpoint,
            input_file_id=wanted.input_file_id,
            completion_window=wanted.completion_window,
            labels=dict(wanted.metadata) if wanted.metadata is not None else None,
            output_seconds=wanted.output_seconds,
            expires_at=self._house.clock() + window,
        )  # fmt: skip
        payload: dict[str, object] = {"batch_id": row.id}
        if scope.models:  # its calls are held to what whoever asked may use
            payload["models"] = [sorted(wall) for wall in scope.models]
        row.job_id = self._jobs.enqueue(session, scope, RUN, payload, priority=PRIORITY)
        session.flush()
        return store.told(row)

    async def get(self, scope: Scope, batch_id: str) -> Batch:
        """Raises Missing."""
        return await self._database.read(store.read, scope, batch_id)

    async def list(self, scope: Scope, *, after: str | None = None, limit: int = 20) -> "tuple[list_[Batch], bool]":
        """Newest first, and whether there are more."""
        if not 1 <= limit <= MOST:
            raise Invalid(f"`limit` must be between 1 and {MOST}.", code="invalid_parameter", param="limit")
        found = await self._database.read(lambda session: store.batches(session, scope, after=after, limit=limit + 1))
        return found[:limit], len(found) > limit

    async def cancel(self, scope: Scope, batch_id: str) -> Batch:
        """What is under way ends, the rest is not begun; the answers there are become files. Raises Missing, Conflict
        when it is over."""
        return await self._database.write(self._cancel, scope, batch_id)

    def _cancel(self, session: Session, scope: Scope, batch_id: str) -> Batch:
        row = store.batch(session, scope, batch_id)
        if row.status in FINAL or row.status == "finalizing":
            raise Conflict(f"This batch is {row.status}; it can no longer be cancelled.", code="batch_over")
        if row.status != "cancelling":
            store.move(session, row, "cancelling")
            after_commit(session, lambda: self._poke(batch_id))
        return store.told(row)

    def _poke(self, batch_id: str) -> None:
        if (stop := self._stops.get(batch_id)) is not None:
            stop.set()

    # -- the job

    async def _run(self, context: Context) -> dict[str, object]:
        stop = self._stops[context.payload["batch_id"]] = asyncio.Event()
        try:
            return await Run(context, self._house, stop).run()
        finally:
            if self._stops.get(context.payload["batch_id"]) is stop:
                del self._stops[context.payload["batch_id"]]

    def _job_ended(self, session: Session, scope: Scope, job: Job) -> None:
        """Whoever cancels the job means the batch, whose answers they shall have; a job that failed fails it."""
        row = store.of_job(session, scope, job.payload["batch_id"])
        if row.status in FINAL:
            return
        if job.state == "cancelled":
            if row.status != "cancelling":
                store.move(session, row, "cancelling")
            row.job_id = self._jobs.enqueue(session, scope, RUN, job.payload, priority=PRIORITY)
            return
        why = job.error.message if job.error else "It failed without a reason."
        code = job.error.code if job.error else "internal"
        announce(self._house.emitter, session, scope, store.told(store.fail(session, row, [LineError(code, why)])))

    def _again(self, session: Session, scope: Scope, job: Job) -> None:
        """The job goes back in the queue, and the batch on from where it was. Raises Missing, Conflict."""
        row = store.of_job(session, scope, job.payload["batch_id"])
        if row.job_id != job.id or row.status != "failed":
            raise Conflict("This batch is over, or another job does it.", code="batch_over")
        store.move(session, row, "in_progress" if "in_progress" in row.reached else "validating", errors=[])


list_ = list  # `Batches.list` hides the builtin inside the class


def _checked(wanted: Wanted) -> int:
    """The window in seconds. Raises Invalid."""
    if wanted.endpoint not in ENDPOINTS:
        raise Invalid(f"`endpoint` must be one of {', '.join(ENDPOINTS)}.", code="invalid_parameter", param="endpoint")
    match = _WINDOW.fullmatch(wanted.completion_window)
    seconds = int(match[1]) * SECONDS[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_WINDOW:
        raise Invalid(
            "`completion_window` is a number of minutes, hours or days up to a week, such as 24h.",
            code="invalid_parameter",
            param="completion_window",
        )
    check_expiry(wanted.output_seconds)
    metadata = wanted.metadata or {}
    if len(metadata) > METADATA or any(
        len(key) > METADATA_KEY or len(value) > METADATA_VALUE for key, value in metadata.items()
    ):
        raise Invalid(
            f"`metadata` holds up to {METADATA} pairs: keys of up to {METADATA_KEY} characters, values of up to "
            f"{METADATA_VALUE}.",
            code="invalid_parameter",
            param="metadata",
        )
    return seconds
