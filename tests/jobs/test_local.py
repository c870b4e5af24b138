"""What is particular to the embedded engine: leases, dead workers, a database that is away, two workers on one file."""

import asyncio
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlmodel import Session
from tests.conftest import POSTGRESQL

from terrace.errors import Unavailable
from terrace.jobs import claims, doctor, endings, outlook, retention
from terrace.jobs.base import Context, JobKind, LostLease
from terrace.jobs.claims import Turns, share
from terrace.jobs.engines.local import LocalJobs, machine
from terrace.settings import Jobs as Options
from terrace.storage import Database, SQLiteDatabase
from terrace.types import Scope, now


async def put(jobs: LocalJobs, scope: Scope, kind: str, **options: Any) -> str:
    return await jobs.database.write(lambda session: jobs.enqueue(session, scope, kind, {}, **options))


async def run_sql(jobs: LocalJobs, statement: str, **values: Any) -> Any:
    return await jobs.database.write(lambda session: session.execute(text(statement), values) and None)


async def sql(jobs: LocalJobs, statement: str, **values: Any) -> Any:
    return await jobs.database.read(lambda session: session.execute(text(statement), values).scalar())


class Gate:
    """A handler that begins, says so, and goes on when it is let."""

    def __init__(self) -> None:
        self.begun, self.open, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.attempts: list[int] = []
        self.lost: list[int] = []
        self.cancelled: list[int] = []

    async def __call__(self, context: Context) -> dict[str, Any]:
        self.attempts.append(context.attempt)
        self.begun.set()
        try:
            await self.open.wait()
            context.emit("text", {"from": context.attempt})
            await context.write(lambda session: None)
        except LostLease:
            self.lost.append(context.attempt)
            raise
        except asyncio.CancelledError:
            self.cancelled.append(context.attempt)
            raise
        finally:
            self.ended.set()
        return {"attempt": context.attempt}


async def test_a_worker_that_lost_its_lease_writes_nothing(start: Any, scope: Scope) -> None:
    """As when it was stopped for longer than its lease and then wakes."""
    gate = Gate()
    jobs = await start(JobKind("gated", gate), heartbeat=100, lease=300)
    job_id = await put(jobs, scope, "gated")
    await gate.begun.wait()
    await run_sql(jobs, "UPDATE jobs SET attempt = 2, worker_id = 'wrk_other'")
    gate.open.set()
    await gate.ended.wait()
    assert gate.lost + gate.cancelled == [1]  # whichever write finds out first
    await jobs.drain()
    job = await jobs.get(scope, job_id)
    assert (job.state, job.result, job.attempt) == ("running", None, 2)
    assert await sql(jobs, "SELECT COUNT(*) FROM job_events WHERE type = 'text'") == 0


async def test_a_job_that_comes_back_to_its_worker_runs_once_more_and_only_that_counts(
    start: Any, scope: Scope
) -> None:
    gate = Gate()
    jobs = await start(JobKind("gated", gate), heartbeat=100, lease=300)
    job_id = await put(jobs, scope, "gated")
    await gate.begun.wait()
    await run_sql(jobs, "UPDATE jobs SET lease_until = 0")
    assert await jobs.database.write(lambda s: endings.recover(s, jobs.journal(s), jobs.rules)) == 1
    await gate.ended.wait()
    assert gate.cancelled == [1]
    gate.open.set()
    job = await jobs.wait(scope, job_id, timeout=30)
    assert (job.result, job.crashes, job.failures, job.attempt) == ({"attempt": 2}, 1, 0, 2)
    events = [event async for event in jobs.events(scope, job_id)]
    assert [event.data for event in events if event.type == "text"] == [{"from": 2}]


async def test_a_heartbeat_keeps_the_lease_and_finds_out_what_is_lost(start: Any, scope: Scope) -> None:
    gate = Gate()
    jobs = await start(JobKind("gated", gate), heartbeat=0.05, lease=30)
    job_id = await put(jobs, scope, "gated")
    await gate.begun.wait()
    ends = "SELECT lease_until FROM jobs"
    first = await sql(jobs, ends)
    async with asyncio.timeout(30):
        while await sql(jobs, ends) <= first:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await jobs.get(scope, job_id)).attempt == 1
    await run_sql(jobs, "UPDATE jobs SET worker_id = 'wrk_other', lease_until = :until", until=now() + 60)
    await gate.ended.wait()
    assert gate.cancelled == [1]
    await jobs.drain()
    assert jobs.running == 0
    assert (await jobs.get(scope, job_id)).state == "running"  # by the other, for all we know


async def test_what_a_dead_process_held_is_taken_back_at_once(start: Any, scope: Scope) -> None:
    gate = Gate()
    gate.open.set()
    jobs = await start(JobKind("gated", gate), work=False, lease=1000)
    job_id = await put(jobs, scope, "gated")

    def die(session: Session) -> None:
        machine.join(session, "wrk_dead")
        session.execute(text("UPDATE job_workers SET process = 'an earlier one' WHERE id = 'wrk_dead'"))
        claims.claim(
            session, jobs.journal(session), worker="wrk_dead", free={"io": 5}, cap=5, lease=1000, turns={"io": Turns()}
        )

    await jobs.database.write(die)
    assert (await jobs.get(scope, job_id)).state == "running"
    await jobs.start()
    job = await jobs.wait(scope, job_id, timeout=30)
    assert (job.state, job.crashes, job.attempt) == ("succeeded", 1, 2)
    assert await sql(jobs, "SELECT COUNT(*) FROM job_workers") == 1


async def test_a_living_process_keeps_what_it_holds(start: Any, scope: Scope) -> None:
    gate = Gate()
    jobs = await start(JobKind("gated", gate))
    job_id = await put(jobs, scope, "gated")
    await gate.begun.wait()
    await start(JobKind("gated", gate))
    assert (await jobs.get(scope, job_id)).crashes == 0
    gate.open.set()
    assert (await jobs.wait(scope, job_id, timeout=30)).attempt == 1


async def test_a_job_that_kills_its_worker_again_and_again_is_dead(start: Any, scope: Scope) -> None:
    ends: list[str] = []
    kind = JobKind("deadly", Gate(), on_end=lambda session, scope, job: ends.append(job.state))
    jobs = await start(kind, work=False)
    job_id = await put(jobs, scope, "deadly")

    def crash(session: Session) -> None:
        turns = {"io": Turns()}
        claims.claim(session, jobs.journal(session), worker="w", free={"io": 1}, cap=5, lease=-1, turns=turns)
        endings.recover(session, jobs.journal(session), jobs.rules)

    states = []
    for _ in range(3):
        await jobs.database.write(crash)
        states.append((await jobs.get(scope, job_id)).state)
    assert states == ["queued", "queued", "failed"]
    job = await jobs.get(scope, job_id)
    assert (job.crashes, job.failures, job.dead) == (3, 0, True)
    assert job.error is not None
    assert job.error.code == "worker_died"
    assert "Try it again" in job.error.message
    assert ends == ["failed"]


async def test_a_job_cancelled_while_its_worker_was_dead_is_cancelled(start: Any, scope: Scope) -> None:
    jobs = await start(JobKind("gated", Gate()), work=False)
    job_id = await put(jobs, scope, "gated")
    turns = {"io": Turns()}
    await jobs.database.write(
        lambda s: claims.claim(s, jobs.journal(s), worker="w", free={"io": 1}, cap=5, lease=-1, turns=turns)
    )
    await jobs.cancel(scope, job_id)
    await jobs.database.write(lambda s: endings.recover(s, jobs.journal(s), jobs.rules))
    assert (await jobs.get(scope, job_id)).state == "cancelled"


@pytest.mark.skipif(POSTGRESQL, reason="about SQLite; test_many_workers.py has PostgreSQL's")
async def test_two_workers_on_one_file_run_each_job_once(start: Any, database: SQLiteDatabase, scope: Scope) -> None:
    ran: Counter[str] = Counter()

    async def handler(context: Context) -> None:
        ran[context.job_id] += 1
        await asyncio.sleep(0)

    kind = JobKind("work", handler)
    one = await start(kind)
    elsewhere = SQLiteDatabase(database.path, durability="normal")
    two = LocalJobs(elsewhere, Options(), [kind])
    await two.start()
    ids = await one.database.write(lambda session: one.enqueue_many(session, scope, "work", [{}] * 600))
    for each in ids:
        assert (await one.wait(scope, each, timeout=20)).attempt == 1
    assert ran == Counter(ids)
    await two.close()
    await elsewhere.close()


async def test_closing_amid_a_flood_leaves_nothing_running(start: Any, scope: Scope) -> None:
    jobs = await start(JobKind("gated", Gate()))
    for _ in range(5):
        await jobs.database.write(lambda session: jobs.enqueue_many(session, scope, "gated", [{}] * 150))
    await jobs.close()
    assert await sql(jobs, "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND crashes + failures = 0") == 750
    assert await sql(jobs, "SELECT COUNT(*) FROM job_workers") == 0


class Moody:
    """A database that refuses to write now and then."""

    def __init__(self, inner: Database) -> None:
        self.inner, self.away, self.refused = inner, False, 0
        self.refused_thrice = asyncio.Event()

    dialect = "sqlite"

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.read(work, *args, **kwargs)

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        if self.away:
            self.refused += 1
            if self.refused == 3:
                self.refused_thrice.set()
            raise Unavailable("The disk is full.", code="disk_full")
        return await self.inner.write(work, *args, **kwargs)

    def watch(self, wake: Any) -> Any:
        return self.inner.watch(wake)

    async def close(self) -> None: ...


async def test_the_worker_outlives_a_database_that_refuses(database: Database, scope: Scope) -> None:
    gate, moody = Gate(), Moody(database)

    async def handler(context: Context) -> dict[str, Any]:
        context.emit("text", {"n": 1})
        gate.begun.set()
        await gate.open.wait()
        for n in range(2, 50):
            context.emit("text", {"n": n})
        return {"ok": True}

    jobs = LocalJobs(moody, Options(heartbeat=0.02, lease=30), [JobKind("work", handler)])
    await jobs.start()
    job_id = await put(jobs, scope, "work")
    await gate.begun.wait()
    moody.away = True
    gate.open.set()
    await moody.refused_thrice.wait()
    moody.away = False
    job = await jobs.wait(scope, job_id, timeout=30)
    assert (job.state, job.attempt) == ("succeeded", 1)
    told = [event.data["n"] async for event in jobs.events(scope, job_id) if event.type == "text"]
    assert told == list(range(1, 50))
    assert (await jobs.wait(scope, await put(jobs, scope, "work"), timeout=30)).state == "succeeded"
    await jobs.close()


async def test_finished_jobs_go_after_their_time_with_their_events(start: Any, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        context.emit("text", {})

    jobs = await start(JobKind("work", handler))
    old, young = await put(jobs, scope, "work"), await put(jobs, Scope("zeta"), "work")
    waiting = await put(jobs, scope, "work", delay=1000)
    await jobs.wait(scope, old, timeout=30)
    await jobs.wait(Scope("zeta"), young, timeout=30)
    await run_sql(jobs, "UPDATE jobs SET updated_at = 5 WHERE id IN (:a, :b)", a=old, b=waiting)
    assert await jobs.database.write(retention.remove_finished, 1000.0) == 1
    assert await sql(jobs, "SELECT COUNT(*) FROM job_events WHERE job_id = :id", id=old) == 0
    assert [job.id for job in (await jobs.list(scope))[0]] == [waiting]
    assert (await jobs.get(Scope("zeta"), young)).state == "succeeded"


async def test_a_parent_that_never_got_children_ends(start: Any, scope: Scope) -> None:
    jobs = await start(JobKind("batch"))
    parent = await put(jobs, scope, "batch")
    assert await jobs.database.write(lambda s: endings.finish_childless(s, jobs.journal(s), jobs.rules, now() + 1)) == 1
    assert (await jobs.get(scope, parent)).state == "succeeded"


# -- fairness, as arithmetic


tenants = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 12), min_size=1)


@given(tenants, st.integers(0, 40), st.integers(1, 10))
def test_shares_fill_the_slots_level_by_level(running: dict[str, int], slots: int, cap: int) -> None:
    shares = share(slots, running, running, cap, Turns())
    room = sum(max(0, cap - count) for count in running.values())
    assert sum(shares.values()) == min(slots, room)
    after = {tenant: count + shares.get(tenant, 0) for tenant, count in running.items()}
    assert all(after[tenant] <= cap for tenant in shares)
    lowest = min(after.values())
    if lowest < cap:  # whoever got something stands no higher than one above the lowest
        assert all(after[tenant] <= lowest + 1 for tenant in shares)


@given(st.integers(2, 20), st.integers(1, 5))
def test_equal_tenants_take_turns(count: int, slots: int) -> None:
    everyone, turns, served = [f"t{n}" for n in range(count)], Turns(), Counter[str]()
    for _ in range(count * 4):
        served.update(share(slots, everyone, {}, 100, turns))
    assert max(served.values()) - min(served[each] for each in everyone) <= 1


def test_a_process_is_known_by_more_than_its_number() -> None:
    assert machine.process_of(os.getpid()) == machine.process_of(os.getpid())
    assert machine.process_of(os.getpid()) != machine.process_of(1)
    assert machine.process_of(2**22 + 1) is None


@pytest.mark.skipif(POSTGRESQL, reason="about SQLite; test_many_workers.py has PostgreSQL's")
async def test_claiming_does_not_slow_down_with_the_queue(start: Any, scope: Scope) -> None:
    """The plan asks the index for the head of each tenant's queue, and sorts nothing."""
    jobs = await start(JobKind("work", Gate()), work=False)

    def plan(session: Session, statement: Any) -> str:
        values = {"lane": "io", "tenant": "a", "count": 5, "now": 0.0}
        names = {name: values[name] for name in statement.compile().params}
        rows = session.execute(text(f"EXPLAIN QUERY PLAN {statement.text}"), names).all()
        return " ".join(str(row[3]) for row in rows)

    for statement in (outlook.TENANTS, claims.HEADS, outlook.NEXT_DUE, outlook.RUNNING):
        steps = await jobs.database.read(plan, statement)
        assert "TEMP B-TREE" not in steps, steps
        assert "SCAN jobs USING INDEX" in steps or "SEARCH jobs USING" in steps or "COVERING INDEX ix_jobs" in steps
        assert "ix_jobs" in steps


@pytest.mark.parametrize("subject", ["job_stuck", "parent_unended", "child_orphaned", "end_untold", "events_loose"])
async def test_the_doctor_finds_and_mends(start: Any, scope: Scope, subject: str) -> None:
    gate = Gate()
    gate.open.set()
    jobs = await start(JobKind("work", gate), JobKind("batch"))
    done = await put(jobs, scope, "work")
    await jobs.wait(scope, done, timeout=30)
    await jobs.drain()
    assert await doctor.examine(jobs) == []
    parent = await put(jobs, scope, "batch")
    child = await put(jobs, scope, "work", parent_id=parent, delay=500)
    harm = {
        "job_stuck": ("UPDATE jobs SET state = 'running', run_at = 1, lease_until = 5 WHERE id = :id", child),
        "parent_unended": ("UPDATE jobs SET updated_at = 5, parent_id = NULL", parent),
        "child_orphaned": ("DELETE FROM jobs WHERE id = :id", parent),
        "end_untold": ("DELETE FROM job_events WHERE job_id = :id AND type = 'done'", done),
        "events_loose": ("DELETE FROM jobs WHERE id = :id", done),
    }[subject]
    await run_sql(jobs, harm[0], **({"id": harm[1]} if ":id" in harm[0] else {}))
    found = await doctor.examine(jobs)
    assert subject in [finding.code for finding in found]
    assert all(finding.room == "jobs" and finding.repairable and finding.message for finding in found)
    assert [finding.code for finding in await doctor.repair(jobs)] == [finding.code for finding in found]
    assert await doctor.examine(jobs) == []
