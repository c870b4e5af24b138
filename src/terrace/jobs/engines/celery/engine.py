"""Jobs that Celery's workers run: one process publishes ids, workers claim the rows they are brought, then all is as in
the embedded engine.

Who has `start`ed may publish; who also `serve`s lanes, and is brought messages, runs jobs. Leases, heartbeats, what
handlers may do, how jobs end, and what becomes of the work of the dead are the embedded engine's.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from terrace import settings
from terrace.errors import TerraceError, Unavailable
from terrace.jobs import claims, outlook
from terrace.jobs.base import JobKind, Lane
from terrace.jobs.claims import Claimed
from terrace.jobs.endings import Outcome
from terrace.jobs.engines.celery import serving
from terrace.jobs.engines.celery.serving import Workers
from terrace.jobs.engines.celery.window import Plan, Window
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.engines.local.engine import CLAIM_BATCH, POLL_SECONDS
from terrace.jobs.engines.local.recorder import Recorder
from terrace.jobs.engines.local.run import Run
from terrace.jobs.journal import Notice
from terrace.storage import Database
from terrace.storage.database import own_locks
from terrace.storage.leading import Leadership
from terrace.types import new_id, now

log = logging.getLogger(__name__)

LEADS = "celery"  # one of all processes that share the database
PAUSE_SECONDS = 0.01  # between two rounds of publishing: what comes meanwhile goes together
FULL_SECONDS = 0.05  # after one that found jobs, and no room for them
GRACE_SECONDS = 30.0  # a handler past its time is asked to stop for so long before its process is killed
MAX_ID_CHARS = 100


class Publisher(Protocol):
    """A broker of messages: (job id, lane, seconds after which a process is killed over it)."""

    async def publish(self, messages: Sequence[tuple[str, Lane, float]]) -> None:
        """Raises Unavailable when it is away."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a message, for whoever watches Celery."""

    words: str
    failed: bool = False


NOT_OURS = Ended("nothing to do: it runs elsewhere, has ended, or waits for its tenant's other jobs")


class JobFailed(Exception):
    """How Celery is told that an attempt at a job has failed; the row says more."""


class Bearer(Protocol):
    """A message that came, waiting for its job."""

    def begun(self) -> None:
        """It may be acknowledged: from now on the row alone counts."""

    def over(self, ended: Ended) -> None: ...

    def left(self) -> None:
        """This process ends before it could begin."""


@dataclass(slots=True)
class _Brought:
    job_id: str
    lane: Lane
    bearer: Bearer
    outcome: Outcome | None = None


class CeleryJobs(LocalJobs):
    """`start` begins to publish, where no other process does; `serve` beforehand makes this one a worker."""

    def __init__(
        self,
        database: Database,
        options: settings.Jobs,
        kinds: Iterable[JobKind] = (),
        *,
        broker: Publisher,
        grace: float = GRACE_SECONDS,
    ) -> None:
        super().__init__(database, options, kinds, new_id(serving.PUBLISHES))
        self._broker = broker
        self._grace = grace
        self._window = Window(options.tenant_cap, min(options.heartbeat, options.lease / 3))
        self._leadership = Leadership(
            database, LEADS, lease=options.lease, renew=min(options.heartbeat, options.lease / 3), look=POLL_SECONDS
        )
        self._news = asyncio.Event()  # there may be something to publish
        self._pause = PAUSE_SECONDS
        self._away = ""  # why nothing can be published
        self._brought: dict[str, _Brought] = {}  # messages whose rows are not claimed yet
        self._borne: dict[Run, _Brought] = {}

    @property
    def publishing(self) -> str:
        """A line for `/ready`. It begins with ok whatever the broker does: jobs are taken in, and wait."""
        if not self._leadership.leads:
            return "ok: another process publishes"
        return f"ok: jobs wait. {self._away}" if self._away else "ok: this process publishes"

    def serve(self, lanes: Iterable[Lane]) -> None:
        """Before `start`: this process is brought jobs of these lanes."""
        self.worker_id = new_id(serving.prefix_of(lanes))

    async def start(self) -> None:
        await super().start()
        self._loops.append(asyncio.get_running_loop().create_task(self._leadership.forever(self._publish_forever)))

    async def close(self) -> None:
        await super().close()
        await self._broker.close()

    def bring(self, job_id: str, lane: Lane, bearer: Bearer) -> None:
        """A message came."""
        if not isinstance(job_id, str) or len(job_id) > MAX_ID_CHARS or job_id in self._brought:
            bearer.begun()
            bearer.over(NOT_OURS)
        elif self._claiming:
            self._brought[job_id] = _Brought(job_id, lane, bearer)
            self._wake.set()
        else:
            bearer.left()

    async def _stop_claiming(self, patience: float | None = None) -> None:
        await super()._stop_claiming(patience)
        for each in self._brought.values():
            each.bearer.left()
        self._brought.clear()

    # -- hearing

    def heard(self, notice: Notice) -> None:
        super().heard(notice)
        if notice.queued or notice.tenants:
            self._news.set()

    def others_wrote(self) -> None:
        super().others_wrote()
        self._news.set()

    def uncertain(self) -> None:
        super().uncertain()
        self._news.set()

    # -- publishing

    async def _publish_forever(self) -> None:
        """As long as this process leads."""
        self._window.lose()
        while True:
            self._news.clear()
            wait = await self._published()
            await asyncio.sleep(self._pause)
            try:
                async with asyncio.timeout(wait):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _published(self) -> float:
        """A round, whatever comes; seconds until the next."""
        try:
            wait = await self._publish()
        except (TerraceError, DBAPIError) as error:
            if not self._away:
                log.warning("no jobs can be published, which is tried again: %s", error)
            self._away = str(error)
        except Exception:
            log.exception("publishing failed and is tried again")
        else:
            if self._away:
                log.warning("jobs are published again")
            self._away = ""
            return wait
        return random.uniform(0.2, 1.0)

    async def _publish(self) -> float:
        waiting, due, workers = await self.database.read(self._ahead)
        if not waiting:
            self._window.lose()
            self._pause = PAUSE_SECONDS
            return _until(due)

        @own_locks
        def work(session: Session) -> Plan:
            return self._window.plan(session, self.journal(session), workers, time.monotonic())

        plan = await self.database.write(work)
        try:
            if plan.publish:
                limits = {name: kind.timeout + self._grace for name, kind in self.kinds.items()}
                await self._broker.publish(
                    [(each.job_id, each.lane, limits.get(each.kind, self._grace)) for each in plan.publish]
                )
        except Unavailable:
            self._window.lose()
            raise
        self._window.keep(plan)
        self._pause = PAUSE_SECONDS if plan.publish else FULL_SECONDS
        return _until(plan.due)

    def _ahead(self, session: Session) -> tuple[bool, float | None, Workers]:
        """Whether there may be anything to publish, when the next delayed job is due, and who runs them."""
        workers = serving.workers(session, self._slots, self.settings.lease)
        return outlook.waiting(session, self._slots), outlook.next_due(session), workers

    # -- running what is brought

    async def _claim(self) -> float:
        fitting = self._fitting()
        if fitting:
            claimed = await self.database.write(self._take_these, [each.job_id for each in fitting])
            for each in fitting:
                self._begin(each, claimed[each.job_id])
        if self._runs:
            for job_id in await self.database.read(outlook.cancelling, self.worker_id):
                if job_id in self._runs:
                    self._runs[job_id].halt("cancel")
        if len(fitting) == CLAIM_BATCH:
            self._wake.set()
        return POLL_SECONDS

    @own_locks
    def _take_these(self, session: Session, ids: Sequence[str]) -> dict[str, Claimed | None]:
        journal, rules = self.journal(session), self.settings
        return {
            each: claims.claim_one(
                session, journal, each, worker=self.worker_id, cap=rules.tenant_cap, lease=rules.lease
            )
            for each in ids
        }

    def _fitting(self) -> list[_Brought]:
        """Messages for whose jobs there are free slots, as they came."""
        busy = Counter(run.job.lane for run in self._runs.values())
        free = {lane: slots - busy[lane] for lane, slots in self._slots.items()}
        fitting: list[_Brought] = []
        for each in self._brought.values():
            if len(fitting) == CLAIM_BATCH:
                break
            if free[each.lane] > 0:
                free[each.lane] -= 1
                fitting.append(each)
        return fitting

    def _begin(self, brought: _Brought, job: Claimed | None) -> None:
        del self._brought[brought.job_id]
        brought.bearer.begun()
        if job is None:
            brought.bearer.over(NOT_OURS)
            return
        self._start(job)
        self._borne[self._runs[job.id]] = brought

    async def _outcome(self, run: Run, recorder: Recorder) -> Outcome | None:
        outcome = await super()._outcome(run, recorder)
        if run in self._borne:
            self._borne[run].outcome = outcome
        return outcome

    def _settled(self, run: Run) -> None:
        super()._settled(run)
        brought = self._borne.pop(run, None)
        if brought is not None:
            brought.bearer.over(_ended(run, brought.outcome))


def _until(due: float | None) -> float:
    return POLL_SECONDS if due is None else min(max(due - now(), 0.001), POLL_SECONDS)


def _ended(run: Run, outcome: Outcome | None) -> Ended:
    if outcome is None:
        return Ended(f"attempt {run.attempt} was taken from this worker", failed=True)
    words = f"{run.job.kind}, attempt {run.attempt}: {outcome.state}"
    if outcome.error is not None:
        words += f" ({outcome.error.code}: {outcome.error.message})"
    return Ended(words, outcome.failed)
