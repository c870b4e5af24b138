"""The embedded engine: claims, runs, keeps leases alive, takes back the work of the dead, drains.

Every loop outlives the database: what fails is logged and tried again.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from terrace import settings
from terrace.errors import Internal, TerraceError
from terrace.jobs import claims, endings, retention
from terrace.jobs.base import Done, JobKind, Lane, LostLease
from terrace.jobs.claims import Claimed, Taken, Turns
from terrace.jobs.endings import Outcome
from terrace.jobs.engines.local import machine
from terrace.jobs.engines.local.recorder import Recorder
from terrace.jobs.engines.local.run import Run
from terrace.jobs.journal import MAX_RESULT, Notice, encode
from terrace.jobs.outlook import glance
from terrace.jobs.service import CARRIED_SECONDS, JobService
from terrace.storage import Database
from terrace.storage.database import own_locks
from terrace.types import new_id, now

log = logging.getLogger(__name__)

CLAIM_BATCH = 100  # jobs of a lane claimed at a time: what starts in one go without holding up the event loop
BULK_BATCH = 25  # and of those a priority below zero: whoever asks something comes in between
POLL_SECONDS = 2.0  # the net below the wake-ups
HOUSEKEEPING_SECONDS = 600.0
DAY = 86_400.0
CHILDLESS_SECONDS = 60.0  # a parent may wait this long for its first child
PAUSE_SECONDS = 0.05  # between two batches of removals, for others to write
CLOSE_SECONDS = 5.0  # for what a released handler still does


class LocalJobs(JobService):
    """`start` begins to work; without it this only puts in and observes, and other processes work."""

    def __init__(
        self,
        database: Database,
        options: settings.Jobs,
        kinds: Iterable[JobKind] = (),
        worker_id: str | None = None,
    ) -> None:
        super().__init__(database, options, kinds)
        self.worker_id = worker_id or new_id("wrk")
        self._slots: dict[Lane, int] = {"io": options.io_slots, "cpu": options.cpu_slots}
        self._turns: dict[Lane, Turns] = {"io": Turns(), "cpu": Turns()}
        self._runs: dict[str, Run] = {}
        self._released: set[Run] = set()  # were told to stop
        self._wake = asyncio.Event()
        self._sure = False  # that there is something to claim
        self._looks_at = 0.0  # when we look for it next, in the loop's time
        self._idle = asyncio.Event()
        self._idle.set()
        self._loops: list[asyncio.Task[None]] = []
        self._claiming = False
        self._claimer: asyncio.Task[None] | None = None
        self._recorder: Recorder | None = None

    @property
    def running(self) -> int:
        """How many jobs this process runs now."""
        return len(self._runs)

    async def start(self) -> None:
        """Join the workers, take back what dead ones of this machine held, and begin to work."""
        self.listen()
        await self.database.write(machine.join, self.worker_id)
        await self._recover()
        self._recorder = Recorder(self, self.worker_id, self._settled)
        self._claiming = True
        self._claimer = asyncio.get_running_loop().create_task(self._claim_forever(), name="claim_forever")
        for work in (self._beat_forever, self._recover_forever, self._keep_house_forever):
            self._loops.append(asyncio.get_running_loop().create_task(work(), name=work.__name__.strip("_")))

    async def drain(self) -> None:
        """Stop claiming, let running jobs finish for `drain` seconds, and give the rest back to the queue."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.drain
        await self._stop_claiming(max(self.settings.drain, CLOSE_SECONDS))
        if self._recorder is None:
            return
        try:
            async with asyncio.timeout_at(until):
                await self._idle.wait()
        except TimeoutError:
            log.info("giving %d running jobs back to the queue", len(self._runs))
        await self._release()

    async def close(self) -> None:
        """Give running jobs back, let subscribers go. The database stays open."""
        await self._stop_claiming()
        await self._release()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops.clear()
        if self._recorder is not None:
            await self._recorder.close()
            self._recorder = None
            try:
                if not self._runs:  # else a successor looks for us, and takes back what we hold
                    await self.database.write(machine.leave, [self.worker_id])
            except (TerraceError, DBAPIError) as error:
                log.warning("could not sign off: %s", error)
        await super().close()

    async def _stop_claiming(self, patience: float | None = None) -> None:
        """A claim under way is finished first: what it takes must be run or given back. If it takes longer than
        `patience`, so by whoever asks next."""
        self._claiming = False
        self._wake.set()
        if self._claimer is not None:
            await asyncio.wait([self._claimer], timeout=patience)

    async def _release(self) -> None:
        """Those who were told before have had their time."""
        told = all(run in self._released for run in self._runs.values())
        self._released.update(self._runs.values())
        for run in list(self._runs.values()):
            run.halt("release")
        if told:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d jobs did not stop; their leases will end", len(self._runs))

    # -- hearing

    def ours(self) -> Collection[str]:
        return self._runs.keys()

    def heard(self, notice: Notice) -> None:
        super().heard(notice)
        if notice.queued:
            self._sure = True
            self._wake.set()
        for job_id in notice.cancelling:
            if job_id in self._runs:
                self._runs[job_id].halt("cancel")

    def others_wrote(self) -> None:
        super().others_wrote()
        if not self.carrier.carries:
            self._wake.set()
        elif self._looks_at < (moment := asyncio.get_running_loop().time()):  # who puts in may not reach the carrier
            self._looks_at = moment + CARRIED_SECONDS
            asyncio.get_running_loop().call_at(self._looks_at, self._wake.set)

    def uncertain(self) -> None:
        super().uncertain()
        self._wake.set()

    # -- loops

    async def _claim_forever(self) -> None:
        while self._claiming:
            self._wake.clear()
            wait = await self._tried(self._claim, POLL_SECONDS)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _claim(self) -> float:
        """Fill free slots; returns the seconds until there may be more to do by itself."""
        sure, self._sure = self._sure, False
        busy = {lane: sum(run.job.lane == lane for run in self._runs.values()) for lane in self._slots}
        free = {lane: min(slots - busy[lane], CLAIM_BATCH) for lane, slots in self._slots.items()}
        open_lanes = [lane for lane, slots in free.items() if slots]
        if not sure:
            sure, due, cancelling = await self.database.read(glance, self.worker_id, open_lanes)
        claimed: list[Claimed] = []
        if sure and open_lanes:
            bulk = {
                lane: min(BULK_BATCH, max(0, claims.bulk_share(slots) - busy[lane]))
                for lane, slots in self._slots.items()
            }
            claimed, due, cancelling = await self.database.write(self._take, free, bulk)
        for job in claimed:
            self._start(job)
        for job_id in cancelling:
            if job_id in self._runs:
                self._runs[job_id].halt("cancel")
        if len(claimed) >= BULK_BATCH:
            self._sure = True  # there may be more
            self._wake.set()
        return POLL_SECONDS if due is None else min(max(due - now(), 0.001), POLL_SECONDS)

    @own_locks
    def _take(self, session: Session, free: Mapping[Lane, int], bulk: Mapping[Lane, int]) -> Taken:
        return claims.claim(
            session,
            self.journal(session),
            worker=self.worker_id,
            free=free,
            cap=self.settings.tenant_cap,
            lease=self.settings.lease,
            turns=self._turns,
            bulk=bulk,
        )

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(min(self.settings.heartbeat, self.settings.lease / 3))
            await self._tried(self._beat, None)

    async def _beat(self) -> None:
        runs = {(run.job_id, run.attempt): run for run in self._runs.values()}

        @own_locks
        def work(session: Session) -> dict[str, bool]:
            machine.beat(session, self.worker_id)
            return claims.beat(session, self.worker_id, list(runs), self.settings.lease)

        held = await self.database.write(work)
        for run in runs.values():
            if run.job_id not in held:
                if self._runs.get(run.job_id) is run:  # else it ended while we were asking
                    run.halt("lost")
            elif held[run.job_id]:
                run.halt("cancel")

    async def _recover_forever(self) -> None:
        while True:
            await asyncio.sleep(min(self.settings.heartbeat, self.settings.lease / 3) * random.uniform(0.8, 1.2))
            await self._tried(self._recover, None)

    async def _recover(self) -> None:
        if self._runs:
            await self._beat()  # else a machine too busy for us to beat would have us take our own work back
        dead = await self.database.read(machine.dead_workers, self.worker_id)

        def work(session: Session) -> int:
            taken = endings.recover(session, self.journal(session), self.rules, dead)
            if taken < endings.RECOVER_BATCH:
                machine.leave(session, dead)
            return taken

        taken = await self.database.write(work)
        if taken:
            log.warning("took %d jobs back from workers that died or fell silent", taken)

    async def _keep_house_forever(self) -> None:
        while True:
            await self._tried(self._keep_house, None)
            await asyncio.sleep(HOUSEKEEPING_SECONDS)

    async def _keep_house(self) -> None:
        def mend(session: Session) -> None:
            endings.finish_childless(session, self.journal(session), self.rules, now() - CHILDLESS_SECONDS)
            machine.forget(session, self.worker_id)

        await self.database.write(mend)
        before = now() - self.settings.keep_days * DAY
        removed = retention.BATCH
        while removed == retention.BATCH:
            removed = await self.database.write(retention.remove_finished, before)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _tried(self, work: "Callable[[], Awaitable[float | None]]", otherwise: float | None) -> float | None:
        """Neither a database that is away nor a bug may end a loop: then nothing would run any more."""
        try:
            return await work()
        except (TerraceError, DBAPIError) as error:
            log.warning("the job worker could not reach its database and tries again: %s", error)
        except Exception:
            log.exception("the job worker failed and tries again")
        await asyncio.sleep(random.uniform(0.2, 1.0))
        return otherwise

    # -- running

    def _start(self, job: Claimed) -> None:
        assert self._recorder is not None
        if job.id in self._runs:  # it was taken from us and came back: the earlier attempt is void
            self._runs[job.id].halt("lost")
        run = Run(job, self._recorder)
        self._runs[job.id] = run
        self._idle.clear()
        run.task = asyncio.get_running_loop().create_task(self._run(run, self._recorder), name=f"job {job.id}")

    async def _run(self, run: Run, recorder: Recorder) -> None:
        run.outcome = await self._outcome(run, recorder)
        if run.outcome is None:
            self._settled(run)
        else:
            recorder.note(run, at_once=True)

    async def _outcome(self, run: Run, recorder: Recorder) -> Outcome | None:
        """Run the handler; None when the job is no longer ours."""
        kind = self.kinds.get(run.job.kind)
        if kind is None or kind.handler is None:
            return recorder.failure(run, Internal(f"No handler is registered for {run.job.kind}.", code="unknown_kind"))
        try:
            async with asyncio.timeout(kind.timeout) as limit:
                returned = await kind.handler(run)
            return _succeeded(returned)
        except LostLease:
            return None
        except asyncio.CancelledError:
            if run.stop == "lost":
                return None
            if run.stop == "cancel":
                return Outcome("cancelled")
            if run.stop == "release":
                return Outcome("queued")
            return recorder.failure(run, Internal("The handler was cancelled from within.", code="cancelled_within"))
        except TimeoutError as error:
            if not limit.expired():
                return recorder.failure(run, error)
            message = f"It took longer than the {kind.timeout:g} seconds a {kind.name} may take."
            return recorder.failure(run, Internal(message, code="timeout"))
        except Exception as error:
            return None if run.stop == "lost" else recorder.failure(run, error)

    def _settled(self, run: Run) -> None:
        if self._runs.get(run.job_id) is run:
            del self._runs[run.job_id]
        if not self._runs:
            self._idle.set()
        self._wake.set()


def _succeeded(returned: object) -> Outcome:
    done = returned if isinstance(returned, Done) else None
    result = done.result if done is not None else returned
    text = None if result is None else encode(result, MAX_RESULT, "result")
    if done is None:
        return Outcome("succeeded", result=text)
    return Outcome("succeeded", result=text, commit=done.commit, kept=done.kept)
