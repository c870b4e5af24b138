"""Writes down what runs do, many at a time: events, progress and endings of all runs share a transaction.

The first event of a run goes out at once, later ones in groups of some 25 ms, endings at once. Each run has one
write under way at most, so that its events are stored in their order.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from terrace.errors import Internal, TerraceError, Unavailable
from terrace.jobs import claims, endings
from terrace.jobs.base import JobError, LostLease
from terrace.jobs.endings import Ending, Outcome
from terrace.jobs.engines.local.run import Run
from terrace.jobs.journal import Stored
from terrace.jobs.service import JobService
from terrace.jobs.store import insert
from terrace.storage import after_commit, in_bulk
from terrace.storage.database import callbacks, own_locks, says
from terrace.types import now

log = logging.getLogger(__name__)

GROUP_SECONDS = 0.025
GROUP_RUNS = 200  # in one transaction
GROUP_WORKS = 25  # in one transaction, of those with which rooms write rows of their own
RETRY_SECONDS = 0.5  # after the database refused
AWAY = ("database_unreachable", "database_busy")  # that the database refused a handler is no failure of its job
CLOSE_SECONDS = 2.0  # for what is being written when we close

PROGRESS = text("UPDATE jobs SET progress = :progress, updated_at = :now WHERE id = :id")
FAMILY = text(
    "SELECT id FROM jobs WHERE tenant_id = :tenant AND kind = :kind AND idempotency_key >= :first "
    "AND idempotency_key < :end ORDER BY idempotency_key"
)


class Entry(NamedTuple):
    """What is written about a run at one time."""

    run: Run
    events: list[Stored]
    progress: str | None
    outcome: Outcome | None
    seq: int  # of the event that tells the outcome


R = TypeVar("R")
Failed = dict[Run, Exception]  # of each run whose end could not be stored: why


class Recorder:
    def __init__(self, jobs: JobService, worker: str, settled: Callable[[Run], None]) -> None:
        self._jobs = jobs
        self._worker = worker
        self._settled = settled  # the run has ended, as stored or as lost
        self._dirty: dict[Run, None] = {}  # in the order they became so
        self._go = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the timer fires, in the loop's time
        self._last = 0.0
        # Those that write what others write too; bulk apart, so that nobody waits for it.
        self._waiting: dict[bool, deque[Entry]] = {False: deque(), True: deque()}
        self._waits = asyncio.Event()
        self._quiet = asyncio.Event()  # none of them waits or is being written
        self._quiet.set()
        loop = asyncio.get_running_loop()
        self._tasks = (
            loop.create_task(self._forever(), name="job-recorder"),
            loop.create_task(self._settle_forever(), name="job-settler"),
        )

    def note(self, run: Run, *, at_once: bool = False) -> None:
        """The run has something to be written."""
        self._dirty[run] = None
        if at_once:
            self._go.set()
        else:
            self._wake_in(max(0.0, self._last + GROUP_SECONDS - self._time()))

    def note_later(self, run: Run, seconds: float) -> None:
        self._dirty[run] = None
        self._wake_in(seconds)

    async def write(self, run: Run, work: Callable[[Session], Any]) -> Any:
        """Fenced work of a handler, with the events that came before it. It is finished even if nobody waits."""
        task = asyncio.get_running_loop().create_task(self._write(run, work))
        task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def children(self, run: Run, family: int, kind: str, payloads: Sequence[dict[str, Any]]) -> list[str]:
        key = f"children:{run.job_id}:{family}:"

        def work(session: Session) -> list[str]:
            bounds = {"tenant": run.scope.tenant, "kind": kind, "first": key, "end": key + "~"}
            known = list(session.execute(FAMILY, bounds).scalars())
            if known or not payloads:
                return known
            keys = [f"{key}{place:08d}" for place in range(len(payloads))]
            self._jobs.make_room(session, run.scope, len(payloads))
            journal = self._jobs.journal(session)
            declared = self._jobs.kind(kind)
            return insert(session, run.scope, journal, declared, payloads, keys=keys, parent_id=run.job_id)

        children: list[str] = await self.write(run, work)
        return children

    async def close(self) -> None:
        """Write what can be written, then stop."""
        for _ in range(3):
            if not self._dirty:
                break
            await self._flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._quiet.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    # -- the loop

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _wake_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._timer is not None:
            if loop.time() < self._due <= when:
                return
            self._timer.cancel()
        self._due = when  # kept by us: uvloop's handles do not always tell
        self._timer = loop.call_at(when, self._go.set)

    async def _forever(self) -> None:
        while True:
            await self._go.wait()
            self._go.clear()
            try:
                stored = await self._flush()
            except Exception:
                log.exception("writing down what runs did failed")
                stored = False
            if stored:
                self._last = self._time()
            else:
                await asyncio.sleep(RETRY_SECONDS)
                self._go.set()

    async def _flush(self) -> bool:
        """Write what is pending; False when the database refused and it has to be tried again."""
        taken = []
        for run in list(self._dirty)[:GROUP_RUNS]:
            del self._dirty[run]
            if not run.writing.locked():  # else that write notes the run again when it is done
                await run.writing.acquire()  # free, so this does not wait
                taken.append(_entry(run))
        if self._dirty:
            self._go.set()
        plain = [entry for entry in taken if not self._shares(entry)]
        for entry in taken:
            if self._shares(entry):
                self._waiting[_is_bulk(entry)].append(entry)
        if any(self._waiting.values()):
            self._quiet.clear()
            self._waits.set()
        try:
            return await self._record([entry for entry in plain if entry.events or entry.progress or entry.outcome])
        finally:
            self._written(plain)

    async def _settle_forever(self) -> None:
        """Endings that touch more than their job: aside, for they take longer and may have to wait for others."""
        while True:
            await self._waits.wait()
            self._waits.clear()
            while waiting := self._waiting[False] or self._waiting[True]:
                group = [waiting.popleft() for _ in range(min(GROUP_WORKS, len(waiting)))]
                try:
                    stored = await self._record(group)
                except Exception:
                    log.exception("writing down how jobs ended failed")
                    stored = self._refused(group)
                finally:
                    self._written(group)
                if not stored:
                    await asyncio.sleep(RETRY_SECONDS)
            self._quiet.set()

    def _written(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            entry.run.writing.release()
            self._note_rest(entry.run)

    def _note_rest(self, run: Run) -> None:
        """What came up while the run was being written, or is not due yet."""
        if run.dirty:
            self.note(run, at_once=run.outcome is not None)
        elif (wait := run.progress_due_in()) is not None:
            self.note_later(run, wait)

    async def _record(self, entries: Sequence[Entry]) -> bool:
        """Entries that share a transaction; False when the database refused."""
        if not entries:
            return True
        work: Callable[..., tuple[set[tuple[str, int]], Failed]] = self._plain_work
        if self._shares(entries[0]):
            work = in_bulk(partial(self._settle)) if _is_bulk(entries[0]) else self._settle
        try:
            held, failed = await self._jobs.database.write(work, entries)
        except Exception as error:
            if len(entries) > 1 and not isinstance(error, Unavailable):
                return all([await self._record([entry]) for entry in entries])
            return self._refused(entries, error)
        stored = True
        for entry in entries:
            if entry.run in failed:
                stored &= self._refused([entry], failed[entry.run])
                continue
            if (entry.run.job_id, entry.run.attempt) not in held:
                entry.run.halt("lost")
            if entry.outcome is not None:
                entry.run.outcome = None
                self._settled(entry.run)
        return stored

    def _shares(self, entry: Entry) -> bool:
        """Its end writes more than its own rows: its parent's, or those of a room."""
        outcome, job = entry.outcome, entry.run.job
        if outcome is None:
            return False
        own = outcome.commit is None and outcome.kept is None and job.parent_id is None
        return not own or self._tells_room(entry)

    def _tells_room(self, entry: Entry) -> bool:
        kind = self._jobs.kinds.get(entry.run.job.kind)
        ended = entry.outcome is not None and entry.outcome.state in ("failed", "cancelled")
        return ended and kind is not None and kind.on_end is not None

    def _refused(self, group: Sequence[Entry], error: Exception | None = None) -> bool:
        """Nothing of the group was stored: try again, but a failed `Done.commit` is a failure of its attempt."""
        for entry in group:
            entry.run.put_back(entry.events, entry.progress)
            self._dirty[entry.run] = None
        if isinstance(error, endings.CommitFailed):
            group[0].run.outcome = self.failure(group[0].run, error.__cause__ or error)
            return True
        if error is not None:
            log.warning("could not write down %d runs, trying again: %s", len(group), error)
        return False

    def failure(self, run: Run, error: BaseException) -> Outcome:
        """Retry or dead letter, by the kind of error and how often it failed."""
        if isinstance(error, Unavailable) and error.code in AWAY:
            return Outcome("waiting", run_at=now() + RETRY_SECONDS)
        told = _told(error)
        if not isinstance(error, TerraceError):
            log.error("job %s (%s) failed", run.job_id, run.job.kind, exc_info=error)
        failures = run.job.failures + 1
        retryable = not isinstance(error, TerraceError) or error.retryable
        if not retryable or failures >= self._jobs.rules.max_failures(run.job.kind):
            return Outcome("failed", error=told, failed=True)
        wait = self._jobs.rules.backoff(failures)
        if isinstance(error, TerraceError) and error.retry_after is not None:
            wait = max(wait, error.retry_after)
        return Outcome("waiting", error=told, run_at=now() + wait, failed=True)

    # -- transactions

    @own_locks
    def _plain_work(self, session: Session, group: Sequence[Entry]) -> tuple[set[tuple[str, int]], Failed]:
        """The fence holds these jobs' rows, and nothing else is touched: who ends as a child asks for its parent's."""
        return self._work(session, group), {}

    def _settle(self, session: Session, group: Sequence[Entry]) -> tuple[set[tuple[str, int]], Failed]:
        """Those without work of a room together; each of the others apart, so that it cannot spoil the rest."""
        failed: Failed = {}
        together = [entry for entry in group if not self._alone(entry)]
        held = self._work(session, together) if together else set()
        for entry in group:
            if self._alone(entry):
                try:
                    held |= _apart(session, partial(self._work, session, [entry]))
                except OperationalError:
                    raise  # the database cannot take it now: the whole transaction is tried again
                except Exception as error:
                    failed[entry.run] = error
        return held, failed

    def _alone(self, entry: Entry) -> bool:
        """Its room writes something of its own; what kinds `keep` is written for many at once."""
        return (entry.outcome is not None and entry.outcome.commit is not None) or self._tells_room(entry)

    def _work(self, session: Session, group: Sequence[Entry]) -> set[tuple[str, int]]:
        held = claims.held(session, self._worker, [(entry.run.job_id, entry.run.attempt) for entry in group])
        ours = [entry for entry in group if (entry.run.job_id, entry.run.attempt) in held]
        journal = self._jobs.journal(session)
        events = [(entry.run.job.tenant, entry.run.job_id, entry.events) for entry in ours if entry.events]
        journal.extend(events, again=True)
        progress = [
            {"id": entry.run.job_id, "progress": entry.progress, "now": now()} for entry in ours if entry.progress
        ]
        if progress:
            session.execute(PROGRESS, progress)
            journal.notice.tenants.update(entry.run.job.tenant for entry in ours if entry.progress)
        ended = [_ending(entry, entry.outcome, held) for entry in ours if entry.outcome is not None]
        if ended:
            endings.settle(session, journal, self._jobs.rules, ended)
        return set(held)

    async def _write(self, run: Run, work: Callable[[Session], Any]) -> Any:
        async with run.writing:
            events, progress = run.take()
            entry = Entry(run, events, progress, None, 0)

            def fenced(session: Session) -> Any:
                if not self._work(session, [entry]):
                    raise LostLease(run.job_id)
                return work(session)

            try:
                return await self._jobs.database.write(in_bulk(fenced) if says(work, "in_bulk") else fenced)
            except LostLease:
                run.halt("lost")
                raise
            except BaseException:
                run.put_back(events, progress)
                raise
            finally:
                self._note_rest(run)


def _entry(run: Run) -> Entry:
    events, progress = run.take(last=run.outcome is not None)
    return Entry(run, events, progress, run.outcome, run.next_seq)


def _is_bulk(entry: Entry) -> bool:
    return entry.run.job.priority < 0


def _ending(entry: Entry, outcome: Outcome, held: Mapping[tuple[str, int], bool]) -> Ending:
    """Work that a room does with the end may bring children still."""
    has_children = (
        held[entry.run.job_id, entry.run.attempt] if outcome.commit is None and outcome.kept is None else None
    )
    return Ending(entry.run.job, outcome, entry.seq, has_children)


def _apart(session: Session, work: Callable[[], R]) -> R:
    """In a savepoint; what fails has not been, and nobody is told of it."""
    before = callbacks(session)
    try:
        with session.begin_nested():
            result = work()
        told = callbacks(session)
    except Exception:
        callbacks(session)
        told = []
        raise
    finally:
        for callback in (*before, *told):
            after_commit(session, callback)
    return result


def _retrieve(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()


def _told(error: BaseException) -> JobError:
    if isinstance(error, TerraceError):
        return JobError(error.kind, error.code, error.message)
    unexpected = Internal(f"Something unexpected went wrong ({type(error).__name__}). The log has the details.")
    return JobError(unexpected.kind, "unexpected", unexpected.message)
