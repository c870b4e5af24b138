"""Looks at the clock: starts what is due, and writes down how it ended."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from terrace.errors import Denied, Invalid, Missing, TerraceError
from terrace.schedules import store
from terrace.schedules.base import Action, Emitter
from terrace.schedules.tables import RunRow, ScheduleRow
from terrace.storage import Database
from terrace.types import Scope

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0  # at least so often: another process may have changed a schedule, or somebody the clock
SOON_SECONDS = 1.0
FAILED = "schedule.failed"


class Runner:
    """Any number of processes may have one: a due time belongs to whoever moves `next_at` on from it, and its job is
    put in by that same transaction. What was missed while nobody looked is one run."""

    def __init__(
        self,
        database: Database,
        actions: Mapping[str, Action],
        *,
        emitter: Emitter,
        keep_runs: int,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._actions = actions
        self._emitter = emitter
        self._keep = keep_runs
        self._clock = clock
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._soon: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._forever(), name="schedules")

    async def close(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def wake(self) -> None:
        """A schedule has changed: look anew at when the next one is due."""
        self._news.set()

    def wake_soon(self) -> None:
        """Another process has written something, perhaps a schedule: look within a second, however often it writes."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(SOON_SECONDS, self._wake_now)

    def _wake_now(self) -> None:
        self._soon = None
        self._news.set()

    async def _forever(self) -> None:
        while True:
            self._news.clear()
            try:
                patience = min(await self.look(), LOOK_SECONDS)
            except (TerraceError, DBAPIError) as error:
                log.warning("schedules could not be looked at, and are again in %g s: %s", LOOK_SECONDS, error)
                patience = LOOK_SECONDS
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def look(self) -> float:
        """Start what is due now; returns the seconds until something is."""
        while True:
            at = self._clock()
            seen = await self._database.read(store.glance, at)
            if not seen.due and not seen.ended:
                return LOOK_SECONDS if seen.next_at is None else max(0.0, seen.next_at - self._clock())
            if seen.ended:
                await self._database.write(self._settle, at)
            for row in seen.due:
                await self._fire(row, at)

    async def _fire(self, row: ScheduleRow, at: float) -> None:
        assert row.next_at is not None
        try:
            timing = store.timing_of(row)
            following = await asyncio.to_thread(timing.next, max(at, row.next_at), row.next_at)
        except Invalid as error:  # a time zone that is gone from the system, say
            await self._database.write(self._unreadable, row, at, error.message)
            return
        await self._database.write(self._start_due, row, following, at)

    def _start_due(self, session: Session, seen: ScheduleRow, following: float, at: float) -> None:
        schedule = store.claim(session, seen, following)
        if schedule is None or seen.next_at is None:
            return
        run = store.new_run(schedule, seen.next_at, at)
        if store.closed(session, schedule.tenant_id):
            self._skip(run, at, "The tenant is closed.")
        elif (job := store.going(session, schedule)) is not None:
            self._skip(run, at, f"The run before is still going ({job}).")
        else:
            self._begin(session, schedule, run, at)
        store.add_run(session, schedule, run, self._keep)
        session.add(schedule)

    def _begin(self, session: Session, schedule: ScheduleRow, run: RunRow, at: float) -> None:
        scope = Scope(schedule.tenant_id, schedule.user_id, schedule.key_id)
        try:
            with session.begin_nested():
                run.job_id = self.start_action(session, scope, schedule)
        except (Invalid, Missing, Denied) as error:  # trying again cannot help
            self._fail(session, schedule, run, at, error.message, stop=True)
        except TerraceError as error:
            self._skip(run, at, error.message)
        except DBAPIError:
            raise
        except Exception:
            log.exception("starting %s of the schedule %s failed", schedule.action, schedule.id)
            self._fail(session, schedule, run, at, "It could not be started, by an error of ours; the log says more.")

    def start_action(self, session: Session, scope: Scope, schedule: ScheduleRow) -> str:
        """Raises Missing for an action that there is no more, and what the action raises."""
        action = self._actions.get(schedule.action)
        if action is None:
            raise Missing(f"There is no action {schedule.action!r} any more.", code="unknown_action")
        return action.start(session, scope, dict(schedule.payload))

    def _skip(self, run: RunRow, at: float, note: str) -> None:
        run.state, run.finished_at, run.note = "skipped", at, note

    def _fail(
        self, session: Session, schedule: ScheduleRow, run: RunRow, at: float, note: str, *, stop: bool = False
    ) -> None:
        run.state, run.finished_at, run.note = "failed", at, note
        if stop:
            schedule.enabled, schedule.next_at, schedule.problem = False, None, note
        self._tell(session, schedule, run)

    def _unreadable(self, session: Session, seen: ScheduleRow, at: float, why: str) -> None:
        schedule = store.claim(session, seen, None)
        if schedule is not None and seen.next_at is not None:
            run = store.new_run(schedule, seen.next_at, at)
            self._fail(session, schedule, run, at, why, stop=True)
            store.add_run(session, schedule, run, self._keep)
            session.add(schedule)

    def _settle(self, session: Session, at: float) -> None:
        for run in store.settle(session, at):
            self._tell(session, store.get(session, Scope(run.tenant_id), run.schedule_id), run)

    def _tell(self, session: Session, schedule: ScheduleRow, run: RunRow) -> None:
        data = {
            "schedule_id": schedule.id,
            "name": schedule.name,
            "action": schedule.action,
            "run_id": run.id,
            "job_id": run.job_id,
            "message": run.note,
            "stopped": not schedule.enabled and schedule.problem is not None,
        }
        self._emitter.emit(session, Scope(schedule.tenant_id), FAILED, data)
