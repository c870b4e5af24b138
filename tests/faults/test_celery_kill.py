"""Workers of Celery and its brokers are killed for real; no job is lost, none counts twice."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.brokers import RabbitMQServer, RedisServer, Server, running
from tests.faults.celery_app import KINDS, OUTCOMES

from terrace.jobs import doctor
from terrace.jobs.base import JobKind
from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Jobs as Options
from terrace.settings import Settings
from terrace.storage import Database, open_database
from terrace.types import Scope

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

JOBS = 500
LEASE = 3.0  # seconds


async def _never(context: object) -> None:
    raise AssertionError("the observer does not work")


class Installation:
    """A database, a broker, and workers that may be killed and started again."""

    def __init__(self, folder: Path, broker: Server, database_url: str = "") -> None:
        self.broker = broker
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")},
            "TERRACE_DATA": str(folder),
            "TERRACE_STORAGE__DURABILITY": "normal",
            "TERRACE_STORAGE__URL": database_url,
            "TERRACE_JOBS__BROKER": broker.url,
            "TERRACE_JOBS__LEASE": str(LEASE),
            "TERRACE_JOBS__HEARTBEAT": str(LEASE / 3),
            "TERRACE_JOBS__IO_SLOTS": "20",
            "TERRACE_JOBS__CPU_SLOTS": "2",
            "TERRACE_JOBS__MAX_CRASHES": "1000",
            "TERRACE_JOBS__DRAIN": "1",
        }
        self.settings = Settings(
            data=folder, storage={"durability": "normal", "url": database_url}, jobs=Options(max_crashes=1000)
        )
        self.workers: list[asyncio.subprocess.Process] = []
        self.database: Database
        self.observer: LocalJobs

    async def open(self) -> None:
        self.database = await open_database(self.settings)
        await self.database.write(lambda session: session.execute(text(OUTCOMES)) and None)
        kinds = [JobKind(each.name, _never, lane=each.lane) for each in KINDS]
        self.observer = LocalJobs(self.database, Options(max_crashes=1000), kinds)

    async def close(self) -> None:
        for each in self.workers:
            await end(each)
        await self.observer.close()
        await self.database.close()

    async def worker(self, *options: str) -> asyncio.subprocess.Process:
        """As `celery -A ... worker` starts it."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "celery", "-A", "tests.faults.celery_app", "worker", "-l", "warning"),
            *("--without-mingle", "--without-gossip", "-n", f"{random.randrange(10**9)}@%h", *options),
            env=self.environment,
            start_new_session=True,
        )
        self.workers.append(process)
        return process

    async def put(self, scope: Scope, kind: str, count: int) -> list[str]:
        payloads = [{"n": n} for n in range(count)]
        return await self.database.write(lambda session: self.observer.enqueue_many(session, scope, kind, payloads))

    async def left(self) -> int:
        count = text("SELECT COUNT(*) FROM jobs WHERE state <> 'succeeded'")
        return int(await self.database.read(lambda session: session.execute(count).scalar_one()))

    async def outcomes(self) -> list[Any]:
        return list(
            await self.database.read(lambda session: session.execute(text("SELECT job, pid FROM outcomes")).all())
        )

    async def until_all_succeeded(self, meanwhile: Callable[[], Awaitable[None]], times: int, every: float) -> float:
        """Does `meanwhile` so many times while jobs are left; returns how long the rest took after the last."""
        last = time.monotonic()
        async with asyncio.timeout(200):
            while await self.left():
                await asyncio.sleep(random.uniform(0.5, 1.5) * every)
                if times:
                    times -= 1
                    await meanwhile()
                    last = time.monotonic()
        assert not times, "it was over before everything had been killed"
        return time.monotonic() - last


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


@pytest.fixture(params=["redis", "redis-append-only", "rabbitmq"])
async def installation(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Installation]:
    folder = tmp_path / "broker"
    folder.mkdir()
    server: Server
    if request.param == "rabbitmq":
        server = RabbitMQServer(folder)
    else:
        server = RedisServer(folder, append_only=request.param == "redis-append-only")
    with running(server):
        made = Installation(tmp_path / "data", server)
        await made.open()
        yield made
        await made.close()


async def assert_each_once(made: Installation, scope: Scope, ids: list[str]) -> None:
    assert sorted(row.job for row in await made.outcomes()) == sorted(ids), "each job's work is stored exactly once"
    for n, job_id in enumerate(ids):
        job = await made.observer.get(scope, job_id)
        assert (job.state, job.result, job.failures) == ("succeeded", {"n": n}, 0)
    assert await doctor.examine(made.observer) == []


async def test_a_broker_killed_again_and_again_loses_no_job(installation: Installation, scope: Scope) -> None:
    """And the workers outlive it: they are started once."""
    workers = [await installation.worker(), await installation.worker()]
    ids = await installation.put(scope, "work", JOBS)

    async def kill() -> None:
        await asyncio.to_thread(installation.broker.kill)
        await asyncio.sleep(random.uniform(0, 0.5))
        await asyncio.to_thread(installation.broker.start)

    await installation.until_all_succeeded(kill, times=2, every=1.0)
    assert [worker.returncode for worker in workers] == [None, None]
    await assert_each_once(installation, scope, ids)


async def test_workers_killed_at_random_lose_no_job(installation: Installation, scope: Scope) -> None:
    workers = [await installation.worker(), await installation.worker()]
    ids = await installation.put(scope, "work", JOBS)

    async def kill() -> None:
        victim = random.randrange(2)
        await end(workers[victim])
        workers[victim] = await installation.worker()

    await installation.until_all_succeeded(kill, times=3, every=1.0)
    await assert_each_once(installation, scope, ids)


@pytest.fixture
async def on_redis(tmp_path: Path) -> AsyncIterator[Installation]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with running(RedisServer(folder)) as server:
        made = Installation(tmp_path / "data", server)
        await made.open()
        yield made
        await made.close()


PREFORK = ("-Q", "terrace.cpu", "--pool", "processes", "--concurrency", "2")


async def test_cpu_bound_jobs_run_in_prefork_children(on_redis: Installation, scope: Scope) -> None:
    worker = await on_redis.worker(*PREFORK)
    ids = await on_redis.put(scope, "crunch", 30)
    for each in ids:
        assert (await on_redis.observer.wait(scope, each, timeout=60)).attempt == 1
    pids = {row.pid for row in await on_redis.outcomes()}
    assert worker.pid not in pids
    assert 1 <= len(pids) <= 2
    await assert_each_once(on_redis, scope, ids)


async def test_one_that_holds_up_its_process_is_killed_and_tried_again(on_redis: Installation, scope: Scope) -> None:
    await on_redis.worker(*PREFORK)
    (job_id,) = await on_redis.put(scope, "stubborn", 1)
    async with asyncio.timeout(60):
        pids: set[int] = set()
        while len(pids) < 2:
            await asyncio.sleep(0.1)
            pids = {row.pid for row in await on_redis.outcomes()}
    job = await on_redis.observer.get(scope, job_id)
    assert (job.failures, job.crashes >= 1) == (0, True)


@pytest.mark.parametrize(("kind", "options"), [("patient", ()), ("patient-cpu", PREFORK)])
async def test_told_to_end_it_gives_back_what_does_not_end_soon(
    on_redis: Installation, scope: Scope, kind: str, options: tuple[str, ...]
) -> None:
    worker = await on_redis.worker(*options)
    (job_id,) = await on_redis.put(scope, kind, 1)
    async with asyncio.timeout(60):
        async for event in on_redis.observer.events(scope, job_id):
            if event.type == "text":
                break
    worker.terminate()
    assert await asyncio.wait_for(worker.wait(), 60) == 0
    job = await on_redis.observer.get(scope, job_id)
    assert (job.state, job.attempt, job.failures, job.crashes) == ("queued", 1, 0, 0)
    count = text("SELECT COUNT(*) FROM job_workers")
    assert await on_redis.database.read(lambda session: session.execute(count).scalar_one()) == 0, "it signed off"


async def test_a_worker_stopped_for_longer_than_its_lease_is_refused_when_it_wakes(
    on_redis: Installation, scope: Scope
) -> None:
    async def begun(attempt: int) -> None:
        async with asyncio.timeout(60):
            async for event in on_redis.observer.events(scope, job_id):
                if event.type == "text" and event.id.attempt == attempt:
                    return

    stopped = await on_redis.worker()
    (job_id,) = await on_redis.put(scope, "patient", 1)
    await begun(1)
    os.killpg(stopped.pid, signal.SIGSTOP)
    await on_redis.worker()
    await begun(2)
    os.killpg(stopped.pid, signal.SIGCONT)
    await asyncio.sleep(LEASE)  # whatever it still wants to say
    job = await on_redis.observer.get(scope, job_id)
    assert (job.state, job.attempt, job.crashes, job.failures) == ("running", 2, 1, 0)
    await on_redis.observer.cancel(scope, job_id)
    assert (await on_redis.observer.wait(scope, job_id, timeout=20)).attempt == 2


async def test_a_running_job_is_cancelled_from_another_process(on_redis: Installation, scope: Scope) -> None:
    await on_redis.worker()
    (job_id,) = await on_redis.put(scope, "patient", 1)
    async with asyncio.timeout(60):
        async for event in on_redis.observer.events(scope, job_id):
            if event.type == "text":
                break
    await on_redis.observer.cancel(scope, job_id)
    assert (await on_redis.observer.wait(scope, job_id, timeout=20)).state == "cancelled"
