"""Several workers, each with its own connections to one PostgreSQL, as several processes have."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.postgres import Postgres

from terrace.jobs import claims, doctor, outlook
from terrace.jobs.base import Context, Done, JobKind
from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Jobs as Options
from terrace.storage.database import own_locks
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import Scope

Worker = Callable[..., Awaitable[LocalJobs]]


@pytest.fixture
async def worker(postgres_url: str) -> AsyncIterator[Worker]:
    async with AsyncExitStack() as stack:

        async def worker(*kinds: JobKind, work: bool = True, **options: Any) -> LocalJobs:
            database = PostgreSQLDatabase(postgres_url, connections=4)
            stack.push_async_callback(database.close)
            jobs = LocalJobs(
                database, Options(**({"drain": 0.1, "backoff": 0.02, "max_crashes": 1000} | options)), kinds
            )
            stack.push_async_callback(jobs.close)
            if work:
                await jobs.start()
            return jobs

        yield worker


async def put(jobs: LocalJobs, scope: Scope, count: int, **options: Any) -> list[str]:
    payloads = [{"n": n} for n in range(count)]
    return await jobs.database.write(lambda session: jobs.enqueue_many(session, scope, "work", payloads, **options))


async def all_ended(jobs: LocalJobs, scope: Scope) -> None:
    async with asyncio.timeout(60):
        while True:
            counts = await jobs.counts(scope)
            if not counts["queued"] + counts["waiting"] + counts["running"]:
                return
            await asyncio.sleep(0.02)


async def test_each_job_is_run_once_and_caps_hold_whoever_claims(worker: Worker, scope: Scope, other: Scope) -> None:
    running, most, runs = Counter[str](), Counter[str](), Counter[str]()

    async def handler(context: Context) -> None:
        tenant = context.scope.tenant
        running[tenant] += 1
        most[tenant] = max(most[tenant], running[tenant])
        runs[context.job_id] += 1
        await asyncio.sleep(random.uniform(0, 0.02))
        running[tenant] -= 1

    first = await worker(JobKind("work", handler), tenant_cap=7)
    for _ in range(3):
        await worker(JobKind("work", handler), tenant_cap=7)
    ids = await put(first, scope, 150) + await put(first, other, 150, priority=-1)
    await all_ended(first, scope)
    await all_ended(first, other)
    assert set(runs) == set(ids)
    assert set(runs.values()) == {1}
    assert most[scope.tenant] <= 7
    assert most[other.tenant] <= 7


async def test_a_named_job_is_claimed_by_one_and_within_the_cap(worker: Worker, scope: Scope) -> None:
    workers = [await worker(JobKind("work", lambda context: asyncio.sleep(0)), work=False) for _ in range(4)]
    ids = await put(workers[0], scope, 8)

    @own_locks
    def claim(session: Session, jobs: LocalJobs, job_id: str) -> claims.Claimed | None:
        journal = jobs.journal(session)
        return claims.claim_one(session, journal, job_id, worker=jobs.worker_id, cap=5, lease=30)

    taken = await asyncio.gather(*(jobs.database.write(claim, jobs, each) for each in ids for jobs in workers))
    claimed = [job for job in taken if job is not None]
    assert len(claimed) == len({job.id for job in claimed}) == 5
    assert {job.attempt for job in claimed} == {1}
    assert claimed[0].scope == Scope(scope.tenant, scope.user, None, claimed[0].id)


@pytest.mark.faults
async def test_endings_and_recoveries_at_the_same_moment_count_one_of_them(
    worker: Worker, postgres: Postgres, postgres_url: str, scope: Scope
) -> None:
    """Leases shorter than the work, so that others take jobs back while they end."""

    async def handler(context: Context) -> Done:
        context.emit("text", {"attempt": context.attempt})
        await asyncio.sleep(random.uniform(0.0, 0.5))
        row = {"job": context.job_id, "attempt": context.attempt}

        def commit(session: Session) -> None:
            session.execute(text("INSERT INTO outcomes VALUES (:job, :attempt)"), row)

        return Done({"attempt": context.attempt}, commit)

    kind = JobKind("work", handler)
    options = {"lease": 0.3, "heartbeat": 30}  # a worker beats three times a lease: sometimes too late on purpose
    first = await worker(kind, work=False)
    with postgres.connection(postgres_url) as connection:
        connection.execute("CREATE TABLE outcomes (job TEXT, attempt INTEGER)")
        connection.execute("GRANT ALL ON outcomes TO PUBLIC")
    ids = await put(first, scope, 60)
    for _ in range(3):
        await worker(kind, **options)
    harm = asyncio.create_task(_expire(first, 40))
    await all_ended(first, scope)
    await harm
    rows = await first.database.read(lambda session: session.execute(text("SELECT job, attempt FROM outcomes")).all())
    assert sorted(row.job for row in rows) == sorted(ids)
    attempts = {row.job: row.attempt for row in rows}
    for job_id in ids:
        job = await first.get(scope, job_id)
        assert (job.state, job.result, job.failures) == ("succeeded", {"attempt": attempts[job_id]}, 0)
        told = [event async for event in first.events(scope, job_id)]
        assert [event.type for event in told].count("done") == 1
        assert told[-1].id.attempt == job.attempt == attempts[job_id]
    assert await doctor.examine(first) == []


async def _expire(jobs: LocalJobs, times: int) -> None:
    """Half of the leases end at once, again and again."""
    end = text("UPDATE jobs SET lease_until = 0 WHERE state = 'running' AND random() < 0.5")
    for _ in range(times):
        await jobs.database.write(lambda session: session.execute(end) and None)
        await asyncio.sleep(0.05)


async def test_children_of_one_parent_end_in_several_processes(worker: Worker, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        await asyncio.sleep(random.uniform(0, 0.01))

    kinds = (JobKind("work", handler), JobKind("all"))
    first = await worker(*kinds)
    for _ in range(2):
        await worker(*kinds)
    parent = await first.database.write(lambda session: first.enqueue(session, scope, "all", {}))
    await put(first, scope, 120, parent_id=parent)
    job = await first.wait(scope, parent, timeout=30)
    assert (job.state, job.children, job.result) == ("succeeded", {"succeeded": 120}, {"children": {"succeeded": 120}})
    told = [event async for event in first.events(scope, parent)]
    assert [event.id.seq for event in told] == list(range(len(told)))
    assert [event.type for event in told].count("done") == 1


async def test_a_parent_that_ends_while_its_last_child_does_goes_on(worker: Worker, scope: Scope) -> None:
    """Neither sees what the other is about to write."""
    looked, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def child(context: Context) -> Done:
        def commit(session: Session) -> None:  # from here on it sees its parent at work
            loop.call_soon_threadsafe(looked.set)
            assert ended.wait(20)

        return Done({}, commit)

    async def parent(context: Context) -> None:
        await context.children("child", [{}])
        await looked.wait()

    jobs = await worker(JobKind("child", child), JobKind("work", parent))
    [job_id] = await put(jobs, scope, 1)
    async with asyncio.timeout(20):
        while (await jobs.get(scope, job_id)).state != "waiting":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    ended.set()
    job = await jobs.wait(scope, job_id, timeout=20)
    assert (job.state, job.result) == ("succeeded", {"children": {"succeeded": 1}})


async def test_the_head_of_the_queue_is_found_by_its_index_however_many_wait(worker: Worker, scope: Scope) -> None:
    jobs = await worker(JobKind("work", lambda context: asyncio.sleep(0)), work=False)

    def fill(session: Session) -> None:
        session.connection().exec_driver_sql(
            "INSERT INTO jobs (id, tenant_id, kind, lane, state, priority, run_at, attempt, failures, crashes, dead, "
            "cancel_requested, payload, created_at, updated_at) SELECT 'job_' || n, 't' || n %% 5, 'work', 'io', "
            "CASE WHEN n %% 3 = 0 THEN 'queued' ELSE 'succeeded' END, 0, n, 0, 0, 0, false, false, '{}', n, n "
            "FROM generate_series(1, 30000) AS n"
        )

    await jobs.database.write(fill)
    values = {"lane": "io", "tenants": ["t1", "t2"], "counts": [10, 10], "tenant": "t1"}

    def plan(session: Session, statement: Any) -> str:
        session.execute(text("SELECT set_config('enable_seqscan', 'off', true)"))  # as a claim does
        names = {name: values[name] for name in statement.compile().params}
        return "\n".join(session.execute(text(f"EXPLAIN (ANALYZE, BUFFERS OFF) {statement.text}"), names).scalars())

    for statement in (outlook.TENANTS, claims.HEADS_OF_ALL, outlook.RUNNING, claims.RUNNING_OF):
        steps = await jobs.database.write(plan, statement)
        assert "Seq Scan on jobs" not in steps, steps
        assert "ix_jobs_queued" in steps or "ix_jobs_running" in steps, steps
        assert "Sort Key" not in steps or "ix_jobs_running" in steps, steps
