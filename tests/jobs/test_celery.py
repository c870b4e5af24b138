"""What is particular to the Celery engine: what is published when, what a message may be, what the app reads when."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.brokers import RedisServer, Server, running
from tests.celery_worker import Engine

from terrace.assembly.engines import open_engine
from terrace.errors import Invalid
from terrace.jobs.base import Context, JobKind, Lane
from terrace.jobs.engines.celery import supervisor
from terrace.jobs.engines.celery.serving import Workers, prefix_of, workers
from terrace.jobs.engines.celery.window import DEPTH, Message, Window
from terrace.jobs.engines.local import LocalJobs, machine
from terrace.settings import Jobs as Options
from terrace.settings import Settings
from terrace.storage import Database
from terrace.types import Scope, new_id, now

Start = Callable[..., Awaitable[Engine]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
async def start(database: Database, broker: Server) -> AsyncIterator[Start]:
    engines: list[Engine] = []

    async def start(*kinds: JobKind, **settings: Any) -> Engine:
        engine = Engine(database, Options(**({"heartbeat": 1, "lease": 60} | settings)), kinds, broker.url)
        engines.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in engines:
        await engine.close()


async def nothing(context: Context) -> None:
    return None


# -- messages


async def test_a_message_that_comes_often_runs_its_job_once(start: Start, scope: Scope) -> None:
    ran: Counter[str] = Counter()

    async def handler(context: Context) -> None:
        ran[context.job_id] += 1
        await asyncio.sleep(0.05)

    jobs = await start(JobKind("work", handler))
    job_id = await jobs.database.write(lambda session: jobs.enqueue(session, scope, "work", {}, delay=0.2))
    for _ in range(10):
        await asyncio.to_thread(jobs.app.send_task, jobs.app.job_task, [job_id], queue=jobs.app.job_queues["io"])
    assert (await jobs.wait(scope, job_id, timeout=20)).attempt == 1
    after = await jobs.database.write(lambda session: jobs.enqueue(session, scope, "work", {}))
    await jobs.wait(scope, after, timeout=20)
    assert ran == {job_id: 1, after: 1}


@pytest.mark.parametrize("arguments", [[], [1], [None], ["job_nobody"], ["x" * 100_000], ["a", "b"], [{"id": 1}]])
async def test_a_message_that_names_no_job_does_no_harm(start: Start, scope: Scope, arguments: list[Any]) -> None:
    jobs = await start(JobKind("work", nothing))
    await asyncio.to_thread(jobs.app.send_task, jobs.app.job_task, arguments, queue=jobs.app.job_queues["io"])
    job_id = await jobs.database.write(lambda session: jobs.enqueue(session, scope, "work", {}))
    assert (await jobs.wait(scope, job_id, timeout=20)).state == "succeeded"


async def test_a_message_that_is_lost_is_sent_again(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("work", nothing), heartbeat=0.2)
    job_id = await jobs.database.write(lambda session: jobs.enqueue(session, scope, "work", {}, delay=0.3))
    publish, sent = jobs._broker.publish, []

    class Leaky:
        async def publish(self, messages: Any) -> None:
            sent.extend(messages)
            if len(sent) > 1:
                await publish(messages)

        async def close(self) -> None: ...

    jobs._broker = Leaky()
    job = await jobs.wait(scope, job_id, timeout=20)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert len(sent) > 1, "once, and again until it has begun"


# -- the window


@pytest.fixture
async def queue(database: Database) -> LocalJobs:
    """Where jobs are put in and nobody works."""
    return LocalJobs(database, Options(), [JobKind("io", nothing), JobKind("cpu", nothing, lane="cpu")])


async def planned(
    queue: LocalJobs, window: Window, at: float = 0.0, serve: tuple[Lane, ...] = ("io", "cpu"), **of_lane: int
) -> list[Message]:
    found = Workers({"io": of_lane.get("io", 0), "cpu": of_lane.get("cpu", 0)}, frozenset(serve))
    plan = await queue.database.write(lambda session: window.plan(session, queue.journal(session), found, at))
    window.keep(plan)
    return plan.publish


async def put(queue: LocalJobs, scope: Scope, kind: str, count: int, priority: int = 0) -> list[str]:
    return await queue.database.write(
        lambda session: queue.enqueue_many(session, scope, kind, [{}] * count, priority=priority)
    )


async def test_the_window_is_twice_the_slots_of_each_lane(queue: LocalJobs, scope: Scope) -> None:
    await put(queue, scope, "io", 100)
    await put(queue, scope, "cpu", 100)
    window = Window(cap=1000, patience=10)
    first = await planned(queue, window, io=10, cpu=2)
    assert Counter(message.lane for message in first) == {"io": 10 * DEPTH, "cpu": 2 * DEPTH}
    assert await planned(queue, window, io=10, cpu=2) == []
    assert len(await planned(queue, window, io=11, cpu=2)) == DEPTH


async def test_what_has_begun_makes_room_and_what_is_urgent_comes_next(queue: LocalJobs, scope: Scope) -> None:
    await put(queue, scope, "io", 100)
    window = Window(cap=1000, patience=10)
    first = await planned(queue, window, io=2)
    begun = first[0].job_id
    (urgent,) = await put(queue, scope, "io", 1, priority=5)
    take = text("UPDATE jobs SET state = 'running', attempt = 1 WHERE id = :id")
    await queue.database.write(lambda session: session.execute(take, {"id": begun}) and None)
    assert [message.job_id for message in await planned(queue, window, io=2)] == [urgent]
    again = text("UPDATE jobs SET state = 'queued', priority = 9 WHERE id = :id")
    await queue.database.write(lambda session: session.execute(again, {"id": begun}) and None)
    assert (await planned(queue, window, io=3))[0].job_id == begun


async def test_tenants_take_turns_and_none_has_more_on_its_way_than_it_may_run(queue: LocalJobs, scope: Scope) -> None:
    await put(queue, scope, "io", 500)
    for n in range(20):
        await put(queue, Scope(f"light{n}"), "io", 1)
    chosen = Counter(message.tenant for message in await planned(queue, Window(cap=30, patience=10), io=25))
    assert len(chosen) == 21
    assert chosen[scope.tenant] == 30


async def test_bulk_leaves_slots_to_everything_else(queue: LocalJobs, scope: Scope) -> None:
    await put(queue, scope, "io", 500, priority=-1)
    window = Window(cap=1000, patience=10)
    assert len(await planned(queue, window, io=10)) == 8
    await put(queue, scope, "io", 500)
    assert [message.bulk for message in await planned(queue, window, io=10)] == [False] * 12


async def test_what_counts_as_lost_is_given_twice_as_long_each_time(queue: LocalJobs, scope: Scope) -> None:
    await put(queue, scope, "io", 1)
    window = Window(cap=10, patience=1)
    sent = [at for at in range(150) if await planned(queue, window, float(at), io=1)]
    assert sent == [0, 1, 3, 7, 15, 31, 63, 123]  # sixty times the patience at most


async def test_nothing_is_sent_again_where_nobody_is_there_to_take_it(queue: LocalJobs, scope: Scope) -> None:
    await put(queue, scope, "io", 1)
    window = Window(cap=10, patience=1)
    sent = [at for at in range(40) if await planned(queue, window, float(at), serve=(), io=1)]
    assert sent == [0]
    assert len(await planned(queue, window, 40.0, io=1)) == 1, "the first worker came"


async def test_the_slots_are_those_of_the_workers_that_live(database: Database) -> None:
    of_one: dict[Lane, int] = {"io": 50, "cpu": 4}

    async def told() -> tuple[dict[Lane, int], set[Lane]]:
        found = await database.read(workers, of_one, 30.0)
        return dict(found.slots), set(found.serve)

    assert await told() == (of_one, set()), "messages wait for the first worker"
    lanes: list[tuple[Lane, ...]] = [("io",), ("io",), *[("cpu",)] * 6, ("io", "cpu")]
    for each in lanes:
        await database.write(machine.join, new_id(prefix_of(each)))
    await database.write(machine.join, new_id("wrk"))
    assert await told() == ({"io": 150, "cpu": 10}, {"io", "cpu"})
    old = text("UPDATE job_workers SET heartbeat_at = :at")
    await database.write(lambda session: session.execute(old, {"at": now() - 60}) and None)
    assert await told() == (of_one, set())


# -- settings


def test_importing_the_app_reads_no_settings() -> None:
    environment = {**os.environ, "TERRACE_JOBS__LEASE": "nonsense", "TERRACE_DATA": "/nowhere"}
    script = (
        "from terrace.jobs.engines.celery.app import app\n"
        "from click import ClickException\n"
        "try:\n    app.conf.broker_url\nexcept ClickException as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "TERRACE_JOBS__LEASE" in done.stdout


@pytest.mark.parametrize(
    "module", [("celery", "-A", "terrace.jobs.engines.celery.app"), ("terrace.jobs.engines.celery",)]
)
def test_its_command_line_says_what_to_set(tmp_path: Path, module: tuple[str, ...]) -> None:
    environment = {**os.environ, "TERRACE_DATA": str(tmp_path), "TERRACE_JOBS__BROKER": "", "TERRACE_REDIS__URL": ""}
    command = [sys.executable, "-m", *module, "worker"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "set TERRACE_JOBS__BROKER" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


@pytest.mark.parametrize("broker", ["", "http://somewhere", "sqs://"])
async def test_an_engine_without_a_broker_says_what_to_set(database: Database, broker: str) -> None:
    with pytest.raises(Invalid, match="TERRACE_JOBS__BROKER"):
        open_engine(Settings(jobs={"engine": "celery", "broker": broker}), database)


def test_a_broker_is_redis_unless_another_is_named() -> None:
    settings = Settings(jobs={"engine": "celery"}, redis={"url": "redis://127.0.0.1/3", "prefix": "two"})
    lanes = supervisor.commands(settings)
    assert "two.io" in lanes["io"]
    assert lanes["cpu"][lanes["cpu"].index("--pool") + 1] == "processes"
