"""Workers, PostgreSQL and Redis are killed and stopped for real; nothing is lost, nothing counts twice."""

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.postgres import Postgres, running
from tests.redis_server import redis_server

from terrace.errors import Unavailable
from terrace.jobs import doctor
from terrace.jobs.base import EventId, JobKind
from terrace.jobs.carriers import open_carrier
from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Jobs as Options
from terrace.settings import Redis
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import Scope

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

WORKER = Path(__file__).parent / "jobs_worker.py"
JOBS = 500
LEASE = 2.0  # seconds
STREAMS, TOKENS = 50, 150


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One that may be killed."""
    with running() as server:
        yield server


@pytest.fixture
def url(server: Postgres) -> Iterator[str]:
    url = server.create()
    with server.connection(url) as connection:
        connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = on")
        connection.execute("CREATE TABLE outcomes (job TEXT, attempt INTEGER)")
        connection.execute("GRANT ALL ON outcomes TO PUBLIC")
    yield url
    server.drop(url)


@pytest.fixture
async def jobs(url: str) -> AsyncIterator[LocalJobs]:
    """An observer, that puts in and looks."""
    observer = _observer(url)
    yield observer
    await observer.close()
    await observer.database.close()


def _observer(url: str, redis: str = "") -> LocalJobs:
    kinds = [JobKind(name, _never) for name in ("work", "patient", "talk")]
    observer = LocalJobs(PostgreSQLDatabase(url, connections=4), Options(), kinds)
    observer.carry(open_carrier(Redis(url=redis)))
    return observer


async def _never(context: object) -> None:
    raise AssertionError("the observer does not work")


class Workers:
    """Processes that come back when they are killed."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.processes: list[asyncio.subprocess.Process] = []

    async def add(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(WORKER), *self._arguments, stdout=asyncio.subprocess.PIPE
        )
        self.processes.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(120):
            assert await process.stdout.readline() == b"ready\n"
        return process

    async def kill_one(self) -> None:
        victim = random.choice(self.processes)
        victim.kill()
        await victim.wait()
        self.processes.remove(victim)
        await self.add()

    async def __aenter__(self) -> "Workers":
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def left(jobs: LocalJobs) -> int:
    """How many have not succeeded; a database that is away says nothing."""
    count = text("SELECT COUNT(*) FROM jobs WHERE state <> 'succeeded'")
    with suppress(Unavailable):
        return int(await jobs.database.read(lambda session: session.execute(count).scalar_one()))
    return JOBS


async def put(jobs: LocalJobs, scope: Scope, kind: str, payloads: list[dict[str, int]]) -> list[str]:
    return await jobs.database.write(lambda session: jobs.enqueue_many(session, scope, kind, payloads))


async def nothing_lost_nothing_twice(jobs: LocalJobs, scope: Scope, ids: list[str]) -> None:
    rows = await jobs.database.read(lambda session: session.execute(text("SELECT job, attempt FROM outcomes")).all())
    counts = Counter(row.job for row in rows)
    lost, twice = [each for each in ids if not counts[each]], [each for each in ids if counts[each] > 1]
    assert (len(lost), len(twice), len(counts)) == (0, 0, len(ids)), "lost, twice, all"
    attempts = {row.job: row.attempt for row in rows}
    for n, job_id in enumerate(ids):
        job = await jobs.get(scope, job_id)
        assert (job.state, job.result, job.failures, job.attempt) == ("succeeded", {"n": n}, 0, attempts[job_id])
    for job_id in random.sample(ids, 50):
        told = [event async for event in jobs.events(scope, job_id)]
        last = [event.data["n"] for event in told if event.type == "text" and event.id.attempt == attempts[job_id]]
        assert last == [0, 1, 2, 3, 4]
        assert [event.type for event in told].count("done") == 1
        assert told[-1].data == {"state": "succeeded"}
    assert await doctor.examine(jobs) == []


async def test_workers_killed_at_random(jobs: LocalJobs, url: str, scope: Scope) -> None:
    ids = await put(jobs, scope, "work", [{"n": n} for n in range(JOBS)])
    kills = 0
    async with Workers(url, str(LEASE)) as workers, asyncio.timeout(500):
        for _ in range(3):
            await workers.add()
        while await left(jobs):
            await asyncio.sleep(random.uniform(0.02, 0.1))
            if kills < 5:
                await workers.kill_one()
                kills += 1
    await nothing_lost_nothing_twice(jobs, scope, ids)


async def test_postgresql_killed_amid_commits(server: Postgres, jobs: LocalJobs, url: str, scope: Scope) -> None:
    ids = await put(jobs, scope, "work", [{"n": n} for n in range(JOBS)])
    kills = 0
    async with Workers(url, str(LEASE)) as workers, asyncio.timeout(500):
        for _ in range(2):
            await workers.add()
        while await left(jobs):
            await asyncio.sleep(random.uniform(0.1, 0.4))
            if kills < 5:
                await asyncio.to_thread(_crash, server)
                kills += 1
                await asyncio.to_thread(server.start)
        assert kills == 5, "all was done before anything was killed"
        assert all(process.returncode is None for process in workers.processes), "a worker outlives the database"
    await nothing_lost_nothing_twice(jobs, scope, ids)


def _crash(server: Postgres) -> None:
    """All its processes at once."""
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)  # it shall not begin a recovery of its own meanwhile
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for each in (*children, pid):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    until = time.monotonic() + 20
    while any(_lives(each) for each in (*children, pid)):
        assert time.monotonic() < until
        time.sleep(0.005)
    for lock in (server.data / "postmaster.pid", server.data / f".s.PGSQL.{server.port}.lock"):
        lock.unlink(missing_ok=True)  # where nobody reaps it, its number stays taken


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


async def test_a_worker_stopped_for_longer_than_its_lease(jobs: LocalJobs, url: str, scope: Scope) -> None:
    ids = await put(jobs, scope, "work", [{"n": n} for n in range(JOBS)])
    async with Workers(url, str(LEASE)) as workers, asyncio.timeout(500):
        for _ in range(3):
            await workers.add()
        stops = 0
        while await left(jobs):
            if stops < 3:
                stopped = workers.processes[stops]
                stopped.send_signal(signal.SIGSTOP)
                await asyncio.sleep(LEASE * 1.5)
                stopped.send_signal(signal.SIGCONT)
                stops += 1
            await asyncio.sleep(0.2)
        await asyncio.sleep(LEASE)  # whatever they still want to say
    await nothing_lost_nothing_twice(jobs, scope, ids)


@pytest.mark.parametrize("append_only", [True, False], ids=["append-only file", "nothing on disk"])
async def test_redis_killed_while_fifty_streams_are_followed(
    url: str, scope: Scope, append_only: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with redis_server(append_only=append_only) as redis:
        jobs = _observer(url, redis.url)
        async with Workers(url, "30", redis.url) as workers:
            await workers.add()
            ids = await put(jobs, scope, "talk", [{"tokens": TOKENS}] * STREAMS)
            following = [asyncio.create_task(_follow(jobs, scope, each)) for each in ids]
            for _ in range(3):
                await asyncio.sleep(0.6)
                redis.kill()
                await asyncio.sleep(0.3)
                redis.start()
            async with asyncio.timeout(100):
                seen = await asyncio.gather(*following)
                while not jobs.carrier.carries:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            missing = sum(TOKENS - len(set(each)) for each in seen)
            twice = sum(len(each) - len(set(each)) for each in seen)
            assert (missing, twice) == (0, 0)
            assert seen == [list(range(TOKENS))] * STREAMS
            assert {(await jobs.get(scope, each)).state for each in ids} == {"succeeded"}
            assert {(await jobs.get(scope, each)).attempt for each in ids} == {1}
        await jobs.close()
        await jobs.database.close()


async def _follow(jobs: LocalJobs, scope: Scope, job_id: str) -> list[int]:
    """Leaving now and then, and coming back to where it was."""
    seen: list[int] = []
    at: EventId | None = None
    while True:
        until = random.randint(5, TOKENS)
        events = jobs.events(scope, job_id, at)
        async for event in events:
            at = event.id
            if event.type == "text":
                seen.append(event.data["n"])
            if event.type == "done":
                return seen
            until -= 1
            if not until:
                break
        await events.aclose()  # type: ignore[attr-defined]
