"""The job engine on SQLite with full durability, and on a private PostgreSQL, against its budgets.

    python -m benchmarks.jobs               every part, with a bare sqlite3 row loop as the reference
    python -m benchmarks.jobs noop          one part: noop, pickup, sleepers, fair, stream, elsewhere
    python -m benchmarks.jobs --postgresql  the same on PostgreSQL, as it comes but for its port
    python -m benchmarks.jobs --peers       Celery with Redis beside it (it is installed into a venv of its own)

CPU per job counts every thread of the process, enqueueing included; PostgreSQL's own is told apart.
"""

import argparse
import asyncio
import contextlib
import os
import random
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.postgres import Postgres
from tests.redis_server import redis_server

from benchmarks.jobs_celery import celery
from benchmarks.start import cpu_seconds, tree
from terrace.jobs.base import Context, EventId, JobKind
from terrace.jobs.carriers import Carrier, open_carrier
from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Jobs as Options
from terrace.settings import Redis
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import Scope

Row = tuple[str, str, str]  # what, measured, budget
ME = Scope("bench")


POSTGRESQL = "TERRACE_BENCH_POSTGRESQL"  # its address, for the processes of the parts


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Database]:
    """An empty database of the kind that is measured; another opening of it sees the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        url = os.environ.get(POSTGRESQL)
        database: Database = PostgreSQLDatabase(url) if url else SQLiteDatabase(Path(folder) / "bench.db")
        if not url:
            await database.write(lambda session: migrate(session.connection()))
        yield database
        await database.close()


def again(database: Database) -> Database:
    """The same, as another process opens it."""
    if isinstance(database, SQLiteDatabase):
        return SQLiteDatabase(database.path)
    return PostgreSQLDatabase(os.environ[POSTGRESQL])


def servers_cpu() -> float:
    """Seconds PostgreSQL has spent; 0 where there is none."""
    pid = os.environ.get(POSTGRESQL + "_PID")
    return sum(cpu_seconds(each) for each in tree(int(pid))) if pid else 0.0


@contextlib.contextmanager
def private_postgresql() -> Iterator[Postgres]:
    """As it comes: what is committed is on the disk."""
    folder = Path(tempfile.mkdtemp(prefix="terrace-bench-"))
    folder.chmod(0o755)
    server = Postgres(folder)
    options = f"-p {server.port} -k {server.data} -c listen_addresses=127.0.0.1"
    server.run("pg_ctl", "-w", "-D", str(server.data), "-l", f"{server.data}/log", "-o", options, "start")
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def engine(*kinds: JobKind, io_slots: int = 500) -> AsyncIterator[LocalJobs]:
    async with opened() as database:
        jobs = LocalJobs(database, Options(io_slots=io_slots, tenant_cap=io_slots), kinds)
        await jobs.start()
        yield jobs
        await jobs.close()


async def put(jobs: LocalJobs, scope: Scope, kind: str, payloads: list[dict[str, object]]) -> list[str]:
    return await jobs.database.write(lambda session: jobs.enqueue_many(session, scope, kind, payloads))


class Countdown:
    """Set when `count` handlers have run."""

    def __init__(self, count: int) -> None:
        self.left, self.zero = count, asyncio.Event()

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.zero.set()


async def all_ended(jobs: LocalJobs, scope: Scope = ME) -> None:
    while True:
        counts = await jobs.counts(scope)
        if not counts["queued"] + counts["running"]:
            return
        await asyncio.sleep(0.02)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def row_loop(count: int, batch: int) -> tuple[float, float]:
    """The reference: the three writes a job needs at the least, in batches, by sqlite3 alone. (CPU ms, jobs/s)"""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(f"{folder}/loop.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT, payload TEXT, result TEXT)")
        connection.execute("CREATE INDEX queued ON jobs (id) WHERE state = 'queued'")
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count // batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO jobs (state, payload) VALUES ('queued', ?)", [("{}",)] * batch)
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY id LIMIT ?", (batch,))
            ids = found.fetchall()
            connection.executemany("UPDATE jobs SET state = 'running' WHERE id = ?", ids)
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("UPDATE jobs SET state = 'succeeded', result = '{}' WHERE id = ?", ids)
            connection.execute("COMMIT")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        connection.close()
    return cpu / count * 1000, count / wall


async def noop() -> list[Row]:
    reference, reference_rate = row_loop(2000, batch=1)
    batched, batched_rate = row_loop(20_000, batch=100)
    count = 20_000

    async def nothing(context: Context) -> None:
        return None

    async with engine(JobKind("noop", nothing)) as jobs:
        await put(jobs, ME, "noop", [{}] * 500)  # warm
        await all_ended(jobs)
        cpu, server, wall = time.process_time(), servers_cpu(), time.perf_counter()
        for start in range(0, count, 1000):
            await put(jobs, ME, "noop", [{"n": start + n} for n in range(1000)])
        await all_ended(jobs)
        cpu, wall = (time.process_time() - cpu) / count * 1000, time.perf_counter() - wall
        server = (servers_cpu() - server) / count * 1000
        singly = 3000
        cpu_singly, server_singly = time.process_time(), servers_cpu()
        await asyncio.gather(*(put(jobs, ME, "noop", [{"n": n}]) for n in range(singly)))
        await all_ended(jobs)
        cpu_singly = (time.process_time() - cpu_singly) / singly * 1000
        server_singly = (servers_cpu() - server_singly) / singly * 1000
    return [
        ("row loop, sqlite3 alone, three commits a job (reference)", _loop(reference, reference_rate), ""),
        ("row loop, sqlite3 alone, three commits a hundred jobs", _loop(batched, batched_rate), ""),
        ("no-op job, put in by the thousand", _cpu(cpu, server), "<= 0.3 ms"),
        ("no-op job, each put in by its own call", _cpu(cpu_singly, server_singly), "<= 0.3 ms"),
        ("no-op jobs/s, one worker", f"{count / wall:,.0f}", ">= 2,000"),
    ]


def _cpu(ours: float, servers: float) -> str:
    return f"{ours:.3f} ms CPU" + (f" (and PostgreSQL {servers:.3f})" if servers else "")


def _loop(cpu: float, rate: float) -> str:
    return f"{cpu:.3f} ms CPU a job, {rate:,.0f} jobs/s"


async def pickup() -> list[Row]:
    waits: list[float] = []
    begun = asyncio.Event()

    async def handler(context: Context) -> None:
        waits.append(time.perf_counter() - asked)
        begun.set()

    kinds = (JobKind("work", handler), JobKind("later"))  # the second waits for children, and is never run
    async with engine(*kinds) as jobs, neighbour(jobs, kinds[0]) as asker:
        for put_in_at in (jobs, asker):
            for _ in range(300):
                begun.clear()
                asked = time.perf_counter()
                await put(put_in_at, ME, "work", [{}])
                await begun.wait()
                await asyncio.sleep(0.005)
        commits = []
        for _ in range(300):
            asked = time.perf_counter()
            await put(jobs, ME, "later", [{}])
            commits.append(time.perf_counter() - asked)
    here, there = waits[:300], waits[300:]
    budget, theirs = ("<= 15 / 50 ms",) * 2 if POSTGRESQL in os.environ else ("<= 5 / 20 ms", "looked for every 10 ms")
    return [
        ("one row put in and committed (reference), p50 / p99", _delays(commits), ""),
        ("from enqueueing to the handler, idle queue, p50 / p99", _delays(here), budget),
        ("the same, put in by another process", _delays(there), theirs),
    ]


async def sleepers() -> list[Row]:
    count = 500
    done = Countdown(count)

    async def handler(context: Context) -> None:
        await asyncio.sleep(2)
        done()

    async with engine(JobKind("sleep", handler)) as jobs:
        await put(jobs, ME, "sleep", [{}])  # warm
        await all_ended(jobs)
        done.left = count  # the memory below is what the 500 add to a running engine
        before, wall = resident_mb(), time.perf_counter()
        await put(jobs, ME, "sleep", [{}] * count)
        await asyncio.sleep(1.5)
        memory = resident_mb() - before
        await done.zero.wait()
        wall = time.perf_counter() - wall
    return [
        ("500 concurrent 2 s jobs, all done in", f"{wall:.2f} s", "<= 2.6 s"),
        ("memory they take", f"{memory:.0f} MB", "<= 30 MB"),
    ]


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024**2


async def fair() -> list[Row]:
    alone = await light_waits(flood=0)
    flooded = await light_waits(flood=100_000)
    ratio = statistics.mean(flooded) / statistics.mean(alone)
    return [
        ("200 tenants with 10 jobs each, alone: wait mean / p95", _waits(alone), ""),
        ("the same while one tenant has 100,000 waiting", f"{_waits(flooded)} ({ratio:.2f}x)", "<= 2x"),
    ]


def _waits(waits: Sequence[float]) -> str:
    return f"{statistics.mean(waits) * 1000:.0f} / {percentile(waits, 0.95) * 1000:.0f} ms"


async def light_waits(flood: int) -> list[float]:
    waits: list[float] = []
    many = [Scope(f"light{n:03d}") for n in range(200)]
    done = Countdown(len(many) * 10)

    async def handler(context: Context) -> None:
        light = context.scope.tenant != heavy.tenant
        if light:
            waits.append(time.perf_counter() - asked)
        await asyncio.sleep(0.02)
        if light:  # now: what is cut off at the end would run in the next round
            done()

    heavy = Scope("heavy")
    async with engine(JobKind("work", handler), io_slots=50) as jobs:
        for _ in range(flood // 1000):
            await put(jobs, heavy, "work", [{}] * 1000)
        asked = time.perf_counter()
        await asyncio.gather(*(put(jobs, each, "work", [{}] * 10) for each in many))
        await done.zero.wait()
    return waits


async def stream() -> list[Row]:
    streams, tokens = 50, 1000
    delays: list[float] = []

    async def handler(context: Context) -> None:
        for n in range(tokens):
            context.emit("text", {"n": n, "text": "token ", "at": time.perf_counter()})
            if n % 5 == 0:
                await asyncio.sleep(0)

    async def follow(jobs: LocalJobs, job_id: str) -> None:
        """Leave and come back at random; what was seen must be every token once and in order."""
        seen: list[int] = []
        at: EventId | None = None
        ended = False
        while not ended:
            until = random.randint(1, tokens)
            async with contextlib.aclosing(jobs.events(ME, job_id, at)) as events:
                async for event in events:
                    at = event.id
                    if event.type == "text":
                        seen.append(event.data["n"])
                        delays.append(time.perf_counter() - event.data["at"])
                    ended = event.type == "done"
                    until -= 1
                    if not until:
                        break
        assert seen == list(range(tokens)), "an event was lost or came twice"

    async with engine(JobKind("talk", handler)) as jobs:
        cpu, wall = time.process_time(), time.perf_counter()
        ids = await put(jobs, ME, "talk", [{}] * streams)
        await asyncio.gather(*(follow(jobs, each) for each in ids))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    rate = streams * tokens / wall
    paced = await paced_delays()
    return [
        ("token events over 50 streams, followed with reconnects", f"{rate:,.0f}/s, none lost or twice", ">= 10,000/s"),
        ("CPU for each", f"{cpu / (streams * tokens) * 1e6:.0f} us", ""),
        ("from emit to follower, 50 streams at 20 tokens/s, p50 / p99", _delays(paced), "within 25 ms groups"),
    ]


@contextlib.asynccontextmanager
async def neighbour(jobs: LocalJobs, kind: JobKind, carrier: Carrier | None = None) -> AsyncIterator[LocalJobs]:
    """Another process on the same database, that puts in and follows but does not work."""
    database = again(jobs.database)
    other = LocalJobs(database, Options(), [kind])
    if carrier is not None:
        other.carry(carrier)
    other.listen()
    yield other
    await other.close()
    await database.close()


async def elsewhere() -> list[Row]:
    """As `stream`, all of it followed in another process than the one that works."""
    rows = []
    with redis_server() as redis:
        for what, options in (("the table", Redis()), ("Redis", Redis(url=redis.url))):
            rows += await followed_elsewhere(what, options)
    return rows


async def followed_elsewhere(what: str, options: Redis) -> list[Row]:
    streams, tokens = 50, 400
    delays: list[float] = []

    async def handler(context: Context) -> None:
        for n in range(tokens if context.payload["quick"] else 60):
            context.emit("text", {"n": n, "text": "token ", "at": time.perf_counter()})
            await asyncio.sleep(0.001 if context.payload["quick"] else 0.05)

    async def follow(other: LocalJobs, job_id: str) -> None:
        seen = []
        async for event in other.events(ME, job_id):
            if event.type == "text":
                seen.append(event.data["n"])
                delays.append(time.perf_counter() - event.data["at"])
        assert seen == list(range(len(seen))), "an event was lost or came twice"

    kind = JobKind("talk", handler)
    async with opened() as database:
        jobs = LocalJobs(database, Options(), [kind])
        jobs.carry(open_carrier(options))
        await jobs.start()
        async with neighbour(jobs, kind, open_carrier(options)) as other:
            await asyncio.sleep(0.5)
            wall, busy = time.perf_counter(), time.process_time()
            ids = await put(other, ME, "talk", [{"quick": True}] * streams)
            await asyncio.gather(*(follow(other, each) for each in ids))
            rate = streams * tokens / (time.perf_counter() - wall)
            busy = (time.process_time() - busy) / (streams * tokens)
            delays.clear()
            cpu = time.process_time()
            ids = await put(other, ME, "talk", [{"quick": False}] * streams)
            await asyncio.gather(*(follow(other, each) for each in ids))
            cpu = (time.process_time() - cpu) / (streams * 60)
        await jobs.close()
    return [
        (
            f"followed in another process, through {what}",
            f"{rate:,.0f}/s, none lost or twice; {busy * 1e6:.0f} us CPU",
            ">= 10,000/s",
        ),
        ("the same at 20 tokens/s, p50 / p99; CPU for each", f"{_delays(delays)}; {cpu * 1e6:.0f} us", ""),
    ]


async def paced_delays() -> list[float]:
    delays: list[float] = []

    async def handler(context: Context) -> None:
        for n in range(60):
            context.emit("text", {"n": n, "at": time.perf_counter()})
            await asyncio.sleep(0.05)

    async def follow(jobs: LocalJobs, job_id: str) -> None:
        delays.extend(
            [time.perf_counter() - event.data["at"] async for event in jobs.events(ME, job_id) if event.type == "text"]
        )

    async with engine(JobKind("talk", handler)) as jobs:
        ids = await put(jobs, ME, "talk", [{}] * 50)
        await asyncio.gather(*(follow(jobs, each) for each in ids))
    return delays


def _delays(delays: Sequence[float]) -> str:
    return f"{percentile(delays, 0.5) * 1000:.1f} / {percentile(delays, 0.99) * 1000:.1f} ms"


PARTS: dict[str, Callable[[], Coroutine[Any, Any, list[Row]]]] = {
    "noop": noop,
    "pickup": pickup,
    "sleepers": sleepers,
    "fair": fair,
    "stream": stream,
    "elsewhere": elsewhere,
}


def show(rows: Sequence[Row]) -> None:
    for what, measured, budget in rows:
        print(f"{what:<62} {measured:<44} {budget}", flush=True)


def run_part(part: str) -> None:
    """In a process of its own, so that one's memory does not hide another's."""
    subprocess.run([sys.executable, "-m", "benchmarks.jobs", part], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which parts; none means all")
    parser.add_argument("--postgresql", action="store_true", help="on a private PostgreSQL instead of SQLite")
    parser.add_argument("--peers", action="store_true", help="measure Celery with Redis too")
    options = parser.parse_args()
    if options.postgresql:
        show([("what, on PostgreSQL", "measured", "budget")])
        with private_postgresql() as server:
            os.environ[POSTGRESQL + "_PID"] = str(server.pid)
            for part in options.parts or PARTS:
                os.environ[POSTGRESQL] = server.create()
                run_part(part)
    elif not options.parts:
        show([("what", "measured", "budget")])
        for part in PARTS:
            run_part(part)
    else:
        for part in options.parts:
            show(asyncio.run(PARTS[part]()))
    if options.peers:
        show(celery())


if __name__ == "__main__":
    main()
