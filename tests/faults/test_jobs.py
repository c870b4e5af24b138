"""Workers are killed and stopped for real; no job is lost and none counts twice."""

import asyncio
import random
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from terrace.jobs import doctor
from terrace.jobs.base import JobKind
from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Jobs as Options
from terrace.storage import Database, SQLiteDatabase
from terrace.types import Scope

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

WORKER = Path(__file__).parent / "jobs_worker.py"
JOBS = 500
LEASE = 1.5  # seconds


@pytest.fixture
async def jobs(database: SQLiteDatabase):
    await database.write(
        lambda session: session.execute(text("CREATE TABLE outcomes (job TEXT, attempt INTEGER)")) and None
    )
    observer = LocalJobs(database, Options(), [JobKind("work"), JobKind("patient")])
    for name in ("work", "patient"):
        observer.register(JobKind(name, handler=_never))
    yield observer
    await observer.close()


async def _never(context: object) -> None:
    raise AssertionError("the observer does not work")


async def worker(database: SQLiteDatabase, lease: float = LEASE) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), str(database.path), str(lease), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"ready\n"
    return process


async def end(*processes: asyncio.subprocess.Process) -> None:
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def left(database: Database) -> int:
    count = text("SELECT COUNT(*) FROM jobs WHERE state <> 'succeeded'")
    return int(await database.read(lambda session: session.execute(count).scalar_one()))


async def test_workers_killed_at_random_lose_nothing_and_count_nothing_twice(
    jobs: LocalJobs, database: SQLiteDatabase, scope: Scope
) -> None:
    ids = await database.write(
        lambda session: jobs.enqueue_many(session, scope, "work", [{"n": n} for n in range(JOBS)])
    )
    workers = [await worker(database), await worker(database)]
    kills = 0
    async with asyncio.timeout(150):
        while await left(database):
            await asyncio.sleep(random.uniform(0.05, 0.3))
            if kills < 5:
                victim = random.randrange(2)
                await end(workers[victim])
                kills += 1
                workers[victim] = await worker(database)
    await end(*workers)
    rows = await database.read(lambda session: session.execute(text("SELECT job, attempt FROM outcomes")).all())
    assert sorted(row.job for row in rows) == sorted(ids), "each job's work is stored exactly once"
    for n, job_id in enumerate(ids):
        job = await jobs.get(scope, job_id)
        assert (job.state, job.result, job.failures) == ("succeeded", {"n": n}, 0)
    for row in random.sample(rows, 100):
        told = [event async for event in jobs.events(scope, row.job)]
        last = [event.data["n"] for event in told if event.type == "text" and event.id.attempt == row.attempt]
        assert last == [0, 1, 2, 3, 4]
        assert told[-1].data == {"state": "succeeded"}
    assert await doctor.examine(jobs) == []


async def test_a_killed_workers_job_is_taken_back_by_its_successor_at_once(
    jobs: LocalJobs, database: SQLiteDatabase, scope: Scope
) -> None:
    job_id = await database.write(lambda session: jobs.enqueue(session, scope, "patient", {}))
    first = await worker(database, lease=600)  # which nobody waits for
    await _begun(jobs, scope, job_id, attempt=1)
    await end(first)
    second = await worker(database, lease=600)
    await _begun(jobs, scope, job_id, attempt=2)
    await end(second)


async def test_a_worker_stopped_for_longer_than_its_lease_is_refused_when_it_wakes(
    jobs: LocalJobs, database: SQLiteDatabase, scope: Scope
) -> None:
    lease = 4.0  # the other must not lose its own, however busy the machine
    job_id = await database.write(lambda session: jobs.enqueue(session, scope, "patient", {}))
    stopped = await worker(database, lease)
    await _begun(jobs, scope, job_id, attempt=1)
    stopped.send_signal(signal.SIGSTOP)
    other = await worker(database, lease)
    await _begun(jobs, scope, job_id, attempt=2)
    stopped.send_signal(signal.SIGCONT)
    await database.write(lambda session: session.execute(text("INSERT INTO outcomes VALUES ('go', 0)")) and None)
    job = await jobs.wait(scope, job_id, timeout=20)
    await asyncio.sleep(1)  # whatever the first still wants to say
    assert (job.state, job.result, job.crashes, job.failures) == ("succeeded", {"attempt": 2}, 1, 0)
    assert await jobs.get(scope, job_id) == job
    told = [event async for event in jobs.events(scope, job_id)]
    assert [(event.id.attempt, event.type) for event in told] == [
        (1, "state"), (1, "text"), (1, "state"), (2, "reset"), (2, "text"), (2, "done"),
    ]  # fmt: skip
    await end(stopped, other)


async def test_another_process_is_followed_event_by_event_and_cancelled(
    jobs: LocalJobs, database: SQLiteDatabase, scope: Scope
) -> None:
    process = await worker(database, lease=600)  # which beats, and so hears of it, too late for us
    job_id = await database.write(lambda session: jobs.enqueue(session, scope, "patient", {}))
    await _begun(jobs, scope, job_id, attempt=1)
    await jobs.cancel(scope, job_id)
    assert (await jobs.wait(scope, job_id, timeout=30)).state == "cancelled"
    await end(process)


async def _begun(jobs: LocalJobs, scope: Scope, job_id: str, attempt: int) -> None:
    async with asyncio.timeout(30):
        async for event in jobs.events(scope, job_id):
            if event.type == "text" and event.id.attempt == attempt:
                return
