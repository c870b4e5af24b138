"""Every job engine behaves like this. Another engine joins by another parameter of `start`."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.brokers import RedisServer, running
from tests.celery_worker import Engine
from tests.postgres import Postgres

from terrace.errors import Conflict, Internal, Invalid, Limited, Missing, Unavailable
from terrace.jobs import claims, leaving
from terrace.jobs.base import Context, Done, EventId, Job, JobEvent, JobKind, Kept
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.engines.local.engine import POLL_SECONDS
from terrace.jobs.journal import MAX_PAYLOAD
from terrace.settings import Jobs as Options
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import Scope

QUICK = Options(
    backoff=0.02, backoff_max=0.05, lease=60, heartbeat=1, drain=0.2, max_failures=3, io_slots=50, cpu_slots=2
)
Start = Callable[..., Awaitable[LocalJobs]]


@pytest.fixture(scope="module")
def one_url(postgres: Postgres) -> Iterator[str]:
    """A database for all tests here: to make one takes as long as ten of them."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An empty, migrated database of one kind and of the other."""
    if request.param == "sqlite":
        path: Path = request.getfixturevalue("tmp_path") / "terrace.db"
        shutil.copy(request.getfixturevalue("migrated"), path)
        opened: Database = SQLiteDatabase(path, durability="normal")
    else:
        url, server = request.getfixturevalue("one_url"), request.getfixturevalue("postgres")
        with server.connection(url) as connection:
            connection.execute("TRUNCATE jobs, job_events, job_workers, leaders")
        opened = PostgreSQLDatabase(url, connections=4)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of Celery's messages."""
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server.url


@pytest.fixture(params=["local", "celery"])
async def start(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Start]:
    """`await start(kind, ..., work=True, **settings)` gives an engine over the test's database."""
    engines: list[LocalJobs] = []
    celery = request.param == "celery"
    broker = request.getfixturevalue("broker") if celery else ""

    async def start(*kinds: JobKind, work: bool = True, **settings: Any) -> LocalJobs:
        options = QUICK.model_copy(update=settings)
        engine = Engine(database, options, kinds, broker) if celery else LocalJobs(database, options, kinds)
        engines.append(engine)
        if work:
            await engine.start()
        return engine

    yield start
    for engine in engines:
        await engine.close()


async def put(jobs: LocalJobs, scope: Scope, kind: str, payload: dict[str, Any] | None = None, **options: Any) -> str:
    return await jobs.database.write(lambda session: jobs.enqueue(session, scope, kind, payload or {}, **options))


async def ended(jobs: LocalJobs, scope: Scope, job_id: str) -> Job:
    return await jobs.wait(scope, job_id, timeout=20)


async def story(jobs: LocalJobs, scope: Scope, job_id: str, after: EventId | None = None) -> list[JobEvent]:
    return await rest(jobs.events(scope, job_id, after))


async def rest(events: AsyncIterator[JobEvent]) -> list[JobEvent]:
    async with asyncio.timeout(20):
        return [event async for event in events]


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def echo(context: Context) -> dict[str, Any]:
    return {"payload": context.payload, "tenant": context.scope.tenant, "user": context.scope.user}


async def all_run(jobs: LocalJobs, count: int) -> bool:
    return jobs.running == count


async def is_in(jobs: LocalJobs, scope: Scope, job_id: str, state: str) -> bool:
    return (await jobs.get(scope, job_id)).state == state


async def forever(context: Context) -> None:
    context.emit("text", {"text": "begun"})
    await asyncio.Event().wait()


async def begun(jobs: LocalJobs, scope: Scope, job_id: str) -> None:
    async with asyncio.timeout(20):
        async for event in jobs.events(scope, job_id):
            if event.type == "text":
                return


# -- the plain way


async def test_a_job_runs_and_keeps_its_result(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo))
    job = await ended(jobs, scope, await put(jobs, scope, "echo", {"n": [1, "ä", None]}, priority=3))
    assert job.state == "succeeded"
    assert job.result == {"payload": {"n": [1, "ä", None]}, "tenant": scope.tenant, "user": scope.user}
    assert (job.attempt, job.failures, job.crashes, job.priority, job.dead) == (1, 0, 0, 3, False)
    assert job.created_at <= job.started_at <= job.finished_at  # type: ignore[operator]
    assert job.user == scope.user


async def test_enqueueing_is_part_of_the_callers_transaction(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo), work=False)

    def work(session: Session) -> None:
        jobs.enqueue(session, scope, "echo", {})
        raise Invalid("changed my mind")

    with pytest.raises(Invalid):
        await jobs.database.write(work)
    assert await jobs.list(scope) == ([], None)


async def test_a_result_is_committed_with_the_rooms_own_rows_or_not_at_all(start: Start, scope: Scope) -> None:
    made: list[str] = []

    async def handler(context: Context) -> Done:
        def commit(session: Session) -> None:
            if context.attempt == 1:
                raise Unavailable("not now")
            if context.attempt == 2:
                jobs.enqueue(session, context.scope, "echo", {})
                raise KeyError("a bug")
            made.append(jobs.enqueue(session, context.scope, "echo", {}))

        return Done({"ok": True}, commit)

    jobs = await start(JobKind("once", handler), JobKind("echo", echo))
    job = await ended(jobs, scope, await put(jobs, scope, "once"))
    assert (job.state, job.result, len(made)) == ("succeeded", {"ok": True}, 1)
    assert (await ended(jobs, scope, made[0])).state == "succeeded"
    assert len((await jobs.list(scope, kind="echo"))[0]) == 1


async def test_many_jobs_in_one_go(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo))
    ids = await jobs.database.write(
        lambda session: jobs.enqueue_many(session, scope, "echo", [{"n": n} for n in range(250)])
    )
    results = [(await ended(jobs, scope, each)).result for each in ids]
    assert [result["payload"]["n"] for result in results if result] == list(range(250))


async def test_a_worker_without_work_beats_too(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo))
    assert await jobs.database.write(claims.beat, jobs.worker_id, [], 30.0) == {}
    assert await jobs.database.write(claims.beat, jobs.worker_id, [("job_of_nobody", 1)], 30.0) == {}


# -- what cannot be put in


async def test_bad_jobs_are_refused_with_a_reason(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo), work=False)
    for options in ({"priority": 5000}, {"delay": -1.0}, {"delay": 1e12}, {"idempotency_key": ""}):
        with pytest.raises(Invalid):
            await put(jobs, scope, "echo", {}, **options)
    with pytest.raises(Invalid, match="Known: echo"):
        await put(jobs, scope, "ehco")
    with pytest.raises(Invalid, match="may have 1024 kB"):
        await put(jobs, scope, "echo", {"x": "y" * MAX_PAYLOAD})
    with pytest.raises(Invalid, match="must be JSON"):
        await put(jobs, scope, "echo", {"x": object()})
    with pytest.raises(Missing):
        await put(jobs, scope, "echo", {}, parent_id="job_nobody")


async def test_the_queue_of_a_tenant_is_bounded(start: Start, scope: Scope, other: Scope) -> None:
    jobs = await start(JobKind("echo", echo), work=False, max_queued=7)
    for _ in range(7):
        await put(jobs, scope, "echo")
    with pytest.raises(Limited, match="7 jobs are waiting") as told:
        await put(jobs, scope, "echo", delay=60.0)
    assert told.value.retry_after
    await put(jobs, other, "echo")
    with pytest.raises(Limited):
        await jobs.database.write(lambda session: jobs.enqueue_many(session, other, "echo", [{}] * 7))


async def test_an_idempotency_key_makes_one_job(start: Start, scope: Scope, other: Scope) -> None:
    jobs = await start(JobKind("echo", echo), JobKind("echo2", echo), work=False)
    first = await put(jobs, scope, "echo", {"a": 1, "b": 2}, idempotency_key="k")
    assert await put(jobs, scope, "echo", {"b": 2, "a": 1}, idempotency_key="k") == first
    with pytest.raises(Conflict, match="different request"):
        await put(jobs, scope, "echo", {"a": 2}, idempotency_key="k")
    assert await put(jobs, other, "echo", {"a": 1, "b": 2}, idempotency_key="k") != first
    assert await put(jobs, scope, "echo2", {"a": 1, "b": 2}, idempotency_key="k") != first
    both = await asyncio.gather(*(put(jobs, scope, "echo", {}, idempotency_key="race") for _ in range(10)))
    assert len(set(both)) == 1


# -- order


async def test_priority_then_age(start: Start, scope: Scope) -> None:
    order: list[int] = []

    async def handler(context: Context) -> None:
        order.append(context.payload["n"])

    jobs = await start(JobKind("ordered", handler, lane="cpu"), work=False, cpu_slots=1)
    for n, priority in enumerate([0, 0, 5, -5, 5]):
        await put(jobs, scope, "ordered", {"n": n}, priority=priority)
    last = await put(jobs, scope, "ordered", {"n": 9}, priority=-9)
    await jobs.start()
    await ended(jobs, scope, last)
    assert order == [2, 4, 0, 1, 3, 9]


async def test_a_delayed_job_waits_its_time(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo))
    late = await put(jobs, scope, "echo", delay=1000)
    began = []
    for _ in range(5):  # a busy machine may be late now and then
        job = await ended(jobs, scope, await put(jobs, scope, "echo", delay=0.5))
        assert job.started_at is not None
        began.append((job.started_at - job.created_at).total_seconds())
        if began[-1] < POLL_SECONDS - 0.2:
            break
    assert min(began) > 0.49
    assert began[-1] < POLL_SECONDS - 0.2, "whoever only looks now and then is never so early"
    assert (await jobs.get(scope, late)).state == "waiting"


async def test_lanes_and_caps_bound_what_runs_at_once(start: Start, scope: Scope, other: Scope) -> None:
    now_running, most = {"io": 0, "cpu": 0}, {"io": 0, "cpu": 0}

    two = asyncio.Event()

    def handler(lane: str) -> Callable[[Context], Awaitable[None]]:
        async def run(context: Context) -> None:
            now_running[lane] += 1
            most[lane] = max(most[lane], now_running[lane])
            if now_running["cpu"] == 2:
                two.set()
            if lane == "cpu":
                await two.wait()  # the first until the second is there, however long that takes
            await asyncio.sleep(0.02)
            now_running[lane] -= 1

        return run

    jobs = await start(JobKind("io", handler("io")), JobKind("cpu", handler("cpu"), lane="cpu"), tenant_cap=6)
    ids = [await put(jobs, scope, kind) for kind in ("io", "cpu") for _ in range(12)]
    for each in ids:
        await ended(jobs, scope, each)
    assert most["cpu"] == 2
    assert most["io"] <= 6


async def test_light_tenants_do_not_wait_behind_a_flood(start: Start, scope: Scope) -> None:
    served: list[str] = []

    async def handler(context: Context) -> None:
        served.append(context.scope.tenant)

    jobs = await start(JobKind("work", handler, lane="cpu"), work=False)
    await jobs.database.write(lambda session: jobs.enqueue_many(session, scope, "work", [{}] * 500))
    light = [Scope(f"light{n:02d}") for n in range(20)]
    ids = [await put(jobs, each, "work") for each in light]
    await jobs.start()
    for each, job_id in zip(light, ids, strict=True):
        await ended(jobs, each, job_id)
    assert max(served.index(each.tenant) for each in light) < 60


async def test_position_and_wait_while_queued(start: Start, scope: Scope, other: Scope) -> None:
    jobs = await start(JobKind("echo", echo), work=False)
    await put(jobs, other, "echo")
    ids = [await put(jobs, scope, "echo") for _ in range(5)]
    assert [(await jobs.get(scope, each)).position for each in ids] == [0, 1, 2, 3, 4]
    urgent = await put(jobs, scope, "echo", priority=1)
    assert (await jobs.get(scope, urgent)).position == 0
    job = await jobs.get(scope, ids[4])
    assert (job.position, job.expected_wait) == (5, None)  # nothing has run yet: nobody can know
    await jobs.start()
    for each in ids:
        await ended(jobs, scope, each)
    await jobs.drain()
    late = await jobs.get(scope, await put(jobs, scope, "echo"))
    assert late.position == 0
    assert late.expected_wait is not None
    assert 0 < late.expected_wait < 20


async def test_idle_time_does_not_lengthen_the_wait(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo), work=False)
    ids = sorted([await put(jobs, scope, "echo") for _ in range(16)])  # as the queue has them
    at = time.time()
    before = [(job_id, 241.0, 240.0) for job_id in ids[:3]]  # put in and ended so many seconds ago
    since = [(job_id, 10.5, 10.0 - number) for number, job_id in enumerate(ids[3:13])]

    def past(session: Session) -> None:
        end = text(
            "UPDATE jobs SET state = 'succeeded', attempt = 1, run_at = :put, updated_at = :end, finished_at = :end "
            "WHERE id = :id"
        )
        for job_id, put_in, end_of in before + since:
            session.execute(end, {"id": job_id, "put": at - put_in, "end": at - end_of})
        session.execute(text("UPDATE jobs SET run_at = :put WHERE state = 'queued'"), {"put": at - 10.5})

    await jobs.database.write(past)
    job = await jobs.get(scope, max(ids[13:]))  # all are of the same moment
    assert job.position == 2
    assert job.expected_wait is not None
    assert 2 < job.expected_wait < 6  # three at one a second, not at thirteen in four minutes
    assert (await jobs.get(scope, ids[0])).position is None


# -- failing


async def test_failures_are_retried_with_a_growing_wait_and_then_dead(start: Start, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        context.emit("text", {"attempt": context.attempt})
        raise RuntimeError("secret detail")

    jobs = await start(JobKind("fails", handler))
    job_id = await put(jobs, scope, "fails")
    job = await ended(jobs, scope, job_id)
    assert (job.state, job.dead, job.failures, job.crashes, job.attempt) == ("failed", True, 3, 0, 3)
    assert job.error is not None
    assert "secret" not in job.error.message
    assert "RuntimeError" in job.error.message
    told = await story(jobs, scope, job_id)
    assert [(event.id.attempt, event.type) for event in told] == [
        (1, "state"), (1, "text"), (1, "state"),
        (2, "reset"), (2, "text"), (2, "state"),
        (3, "reset"), (3, "text"), (3, "done"),
    ]  # fmt: skip
    assert (await jobs.list(scope, dead=True))[0][0].id == job_id


async def test_an_error_that_retrying_cannot_mend_is_final_at_once(start: Start, scope: Scope) -> None:
    ends: list[tuple[str, str]] = []

    async def handler(context: Context) -> None:
        raise Invalid("This file is encrypted.", code="document_encrypted")

    def on_end(session: Session, scope: Scope, job: Job) -> None:
        ends.append((scope.tenant, job.state))

    jobs = await start(JobKind("fails", handler, on_end=on_end))
    job = await ended(jobs, scope, await put(jobs, scope, "fails"))
    assert (job.state, job.failures, job.dead) == ("failed", 1, True)
    assert job.error is not None
    assert (job.error.kind, job.error.code, job.error.message) == (
        "invalid", "document_encrypted", "This file is encrypted.",
    )  # fmt: skip
    assert ends == [(scope.tenant, "failed")]


async def test_an_on_end_that_fails_does_not_keep_the_job_from_ending(start: Start, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        raise Invalid("no")

    def on_end(session: Session, scope: Scope, job: Job) -> None:
        jobs.enqueue(session, scope, "echo", {})
        raise KeyError("a bug")

    jobs = await start(JobKind("fails", handler, on_end=on_end), JobKind("echo", echo))
    assert (await ended(jobs, scope, await put(jobs, scope, "fails"))).state == "failed"
    assert (await jobs.list(scope, kind="echo"))[0] == []


async def test_retry_after_is_honoured(start: Start, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        if context.attempt == 1:
            raise Unavailable("busy", retry_after=0.4)

    jobs = await start(JobKind("busy", handler))
    job = await ended(jobs, scope, await put(jobs, scope, "busy"))
    assert job.finished_at is not None
    assert (job.finished_at - job.created_at).total_seconds() >= 0.4


async def test_a_job_that_takes_too_long_is_stopped(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("slow", forever, timeout=0.05, max_failures=1))
    job = await ended(jobs, scope, await put(jobs, scope, "slow"))
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.code == "timeout"


async def test_a_result_that_is_no_json_or_too_large_fails_the_job(start: Start, scope: Scope) -> None:
    async def odd(context: Context) -> dict[str, Any]:
        return {"x": object()}

    async def large(context: Context) -> dict[str, Any]:
        return {"x": "y" * 2_000_000}

    jobs = await start(JobKind("odd", odd), JobKind("large", large))
    for kind, code in (("odd", "not_json"), ("large", "result_too_large")):
        job = await ended(jobs, scope, await put(jobs, scope, kind))
        assert job.error is not None
        assert (job.state, job.error.code) == ("failed", code)


async def test_a_dead_job_can_be_retried_and_its_stream_goes_on(start: Start, scope: Scope) -> None:
    healed = False

    async def handler(context: Context) -> dict[str, Any]:
        if not healed:
            raise Internal("broken")
        return {"ok": True}

    jobs = await start(JobKind("heals", handler, max_failures=1))
    job_id = await put(jobs, scope, "heals")
    assert (await ended(jobs, scope, job_id)).state == "failed"
    healed = True
    retried = await jobs.retry(scope, job_id)
    assert (retried.state, retried.failures, retried.error) == ("queued", 0, None)
    job = await ended(jobs, scope, job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    told = await story(jobs, scope, job_id)
    assert [event.type for event in told].count("done") == 1  # the first end was not the last
    assert told[-1].data == {"state": "succeeded"}
    with pytest.raises(Conflict):
        await jobs.retry(scope, job_id)


async def test_a_room_hears_of_a_retry_or_refuses_it(start: Start, scope: Scope) -> None:
    heard: list[tuple[str, Any]] = []

    async def handler(context: Context) -> None:
        raise Invalid("no")

    def on_retry(session: Session, scope: Scope, job: Job) -> None:
        heard.append((job.state, job.payload["n"]))
        if job.payload["n"] == 0:
            raise Conflict("There is a newer one.", code="superseded")

    jobs = await start(JobKind("batch"), JobKind("child", handler, on_retry=on_retry))

    def family(numbers: Sequence[int]) -> Callable[[Session], str]:
        def work(session: Session) -> str:
            parent = jobs.enqueue(session, scope, "batch", {})
            jobs.enqueue_many(session, scope, "child", [{"n": n} for n in numbers], parent_id=parent)
            return parent

        return work

    parent, refused = await jobs.database.write(family([0, 1])), await jobs.database.write(family([0]))
    await ended(jobs, scope, parent)
    await ended(jobs, scope, refused)
    children, _ = await jobs.list(scope, parent_id=parent)
    await jobs.retry(scope, parent)
    assert (await ended(jobs, scope, parent)).state == "failed"
    assert sorted(heard) == [("failed", 0), ("failed", 1)]
    assert {(await jobs.get(scope, child.id)).attempt for child in children} == {1, 2}
    assert (await jobs.retry(scope, refused)).state == "failed"  # nothing of it goes on, so neither does it
    (child,), _ = await jobs.list(scope, parent_id=refused)
    with pytest.raises(Conflict, match="newer"):
        await jobs.retry(scope, child.id)
    assert (await jobs.get(scope, child.id)).state == "failed"


async def test_a_list_leaves_long_payloads_and_results_out(start: Start, scope: Scope) -> None:
    async def echo_all(context: Context) -> dict[str, Any]:
        return dict(context.payload)

    jobs = await start(JobKind("echo", echo_all))
    small, large = await put(jobs, scope, "echo", {"a": "b"}), await put(jobs, scope, "echo", {"a": "b" * 10_000})
    for job_id in (small, large):
        await ended(jobs, scope, job_id)
    listed = {job.id: job for job in (await jobs.list(scope))[0]}
    assert (listed[small].payload, listed[small].result, listed[small].abridged) == ({"a": "b"}, {"a": "b"}, False)
    assert (listed[large].payload, listed[large].result, listed[large].abridged) == ({}, None, True)
    assert (await jobs.get(scope, large)).result == {"a": "b" * 10_000}


# -- cancelling


async def test_a_queued_job_is_cancelled_at_once(start: Start, scope: Scope) -> None:
    ends: list[str] = []
    kind = JobKind("echo", echo, on_end=lambda session, scope, job: ends.append(job.state))
    jobs = await start(kind, work=False)
    job_id = await put(jobs, scope, "echo")
    assert (await jobs.cancel(scope, job_id)).state == "cancelled"
    assert ends == ["cancelled"]
    assert [event.type for event in await story(jobs, scope, job_id)] == ["done"]
    assert (await jobs.cancel(scope, job_id)).state == "cancelled"


async def test_a_running_job_stops_at_its_next_await(start: Start, scope: Scope) -> None:
    cleaned: list[bool] = []

    async def handler(context: Context) -> None:
        try:
            await forever(context)
        finally:
            context.emit("text", {"text": "last words"})
            await context.write(lambda session: cleaned.append(True))

    jobs = await start(JobKind("forever", handler))
    job_id = await put(jobs, scope, "forever")
    await begun(jobs, scope, job_id)
    assert (await jobs.cancel(scope, job_id)).cancel_requested
    job = await ended(jobs, scope, job_id)
    assert (job.state, job.failures, cleaned) == ("cancelled", 0, [True])
    assert [event.data.get("text") for event in await story(jobs, scope, job_id) if event.type == "text"] == [
        "begun", "last words",
    ]  # fmt: skip


# -- families


async def test_a_parent_without_handler_waits_for_its_children(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("batch"), JobKind("echo", echo))

    def work(session: Session) -> str:
        parent = jobs.enqueue(session, scope, "batch", {})
        jobs.enqueue_many(session, scope, "echo", [{"n": n} for n in range(7)], parent_id=parent)
        return parent

    parent = await jobs.database.write(work)
    told = await story(jobs, scope, parent)
    assert (told[-1].type, told[-1].data) == ("done", {"state": "succeeded"})
    assert told[-2].type == "progress"
    assert (told[-2].data["done"], told[-2].data["total"]) == (7, 7)
    job = await jobs.get(scope, parent)
    assert job.result == {"children": {"succeeded": 7}}
    assert job.children == {"succeeded": 7}
    assert len((await jobs.list(scope, parent_id=parent))[0]) == 7
    with pytest.raises(Conflict, match="has ended"):
        await put(jobs, scope, "echo", {}, parent_id=parent)


async def test_a_parent_fails_when_all_its_children_did(start: Start, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        if context.payload["n"] in failing:
            raise Invalid("no")

    failing = {0, 1}
    jobs = await start(JobKind("batch"), JobKind("child", handler))

    def work(session: Session) -> str:
        parent = jobs.enqueue(session, scope, "batch", {})
        jobs.enqueue_many(session, scope, "child", [{"n": 0}, {"n": 1}], parent_id=parent)
        return parent

    parent = await jobs.database.write(work)
    job = await ended(jobs, scope, parent)
    assert (job.state, job.result) == ("failed", {"children": {"failed": 2}})
    failing.discard(1)
    await jobs.retry(scope, parent)
    job = await ended(jobs, scope, parent)
    assert (job.state, job.children) == ("succeeded", {"failed": 1, "succeeded": 1})


async def test_a_handler_with_children_enqueued_before_it_runs_after_them(start: Start, scope: Scope) -> None:
    order: list[str] = []

    async def child(context: Context) -> None:
        order.append("child")

    async def summary(context: Context) -> dict[str, Any]:
        order.append("summary")
        return {"sum": len(order)}

    jobs = await start(JobKind("summary", summary), JobKind("child", child))

    def work(session: Session) -> str:
        parent = jobs.enqueue(session, scope, "summary", {})
        jobs.enqueue_many(session, scope, "child", [{}, {}], parent_id=parent)
        return parent

    job = await ended(jobs, scope, await jobs.database.write(work))
    assert order == ["child", "child", "summary"]
    assert job.result == {"sum": 3, "children": {"succeeded": 2}}


async def test_a_handler_makes_its_children_once_whatever_the_attempt(start: Start, scope: Scope) -> None:
    made: list[list[str]] = []

    async def handler(context: Context) -> dict[str, Any]:
        made.append(await context.children("echo", [{"n": n} for n in range(12)]))
        made.append(await context.children("echo", [{"n": 99}]))
        if context.attempt == 1:
            raise RuntimeError("after the children")
        return {"made": 13}

    jobs = await start(JobKind("splits", handler), JobKind("echo", echo))
    job = await ended(jobs, scope, await put(jobs, scope, "splits"))
    assert made[:2] == made[2:]
    assert job.result == {"made": 13, "children": {"succeeded": 13}}
    payloads = [(await jobs.get(scope, each)).payload["n"] for each in made[0]]
    assert payloads == list(range(12))


async def test_cancelling_a_parent_cancels_its_children(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("batch"), JobKind("forever", forever), io_slots=1)

    def work(session: Session) -> tuple[str, list[str]]:
        parent = jobs.enqueue(session, scope, "batch", {})
        return parent, jobs.enqueue_many(session, scope, "forever", [{}, {}], parent_id=parent)

    parent, children = await jobs.database.write(work)
    await begun(jobs, scope, children[0])
    assert (await jobs.cancel(scope, parent)).state == "cancelled"
    assert [(await ended(jobs, scope, each)).state for each in children] == ["cancelled", "cancelled"]
    assert (await jobs.get(scope, parent)).state == "cancelled"


# -- following


async def test_events_are_replayed_from_any_point_and_followed(start: Start, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        for n in range(300):
            context.emit("text", {"n": n})
            if n % 10 == 0:
                await asyncio.sleep(0.002)

    jobs = await start(JobKind("talks", handler))
    job_id = await put(jobs, scope, "talks")
    live = await story(jobs, scope, job_id)
    assert [event.data["n"] for event in live if event.type == "text"] == list(range(300))
    assert [event.id for event in live] == sorted({event.id for event in live})
    assert await story(jobs, scope, job_id) == live
    for cut in (0, 1, 137, 300, 301):
        assert await story(jobs, scope, job_id, live[cut].id) == live[cut + 1 :]


async def test_a_follower_that_reconnects_all_the_time_misses_nothing(start: Start, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        for n in range(200):
            context.emit("text", {"n": n})
            await asyncio.sleep(0.001)

    jobs = await start(JobKind("talks", handler))
    job_id = await put(jobs, scope, "talks")
    seen: list[JobEvent] = []
    while not seen or seen[-1].type != "done":
        events = jobs.events(scope, job_id, seen[-1].id if seen else None)
        async for event in events:
            seen.append(event)
            if len(seen) % 7 == 0:
                break
        await events.aclose()
    assert [event.data["n"] for event in seen if event.type == "text"] == list(range(200))


async def test_a_slow_follower_holds_little_and_misses_nothing(start: Start, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        for n in range(3000):
            context.emit("text", {"n": n})
            if n % 100 == 0:
                await asyncio.sleep(0)

    jobs = await start(JobKind("talks", handler))
    job_id = await put(jobs, scope, "talks")
    seen = []
    async for event in jobs.events(scope, job_id):
        if event.type == "text":
            seen.append(event.data["n"])
            if len(seen) == 5:
                await ended(jobs, scope, job_id)
    assert seen == list(range(3000))


async def test_progress_is_kept_on_the_row_and_coalesced(start: Start, scope: Scope) -> None:
    async def handler(context: Context) -> None:
        for n in range(1001):
            context.progress(n, 1000, "embedding")

    jobs = await start(JobKind("long", handler))
    job_id = await put(jobs, scope, "long")
    told = [event.data for event in await story(jobs, scope, job_id) if event.type == "progress"]
    assert len(told) <= 3
    assert told[-1] == {"done": 1000, "total": 1000, "note": "embedding"}
    job = await jobs.get(scope, job_id)
    assert job.progress is not None
    assert (job.progress.done, job.progress.total, job.progress.note) == (1000, 1000, "embedding")


async def test_changes_tell_of_every_job_of_the_tenant_and_of_no_other(
    start: Start, scope: Scope, other: Scope
) -> None:
    jobs = await start(JobKind("echo", echo))
    changes = jobs.changes(scope)
    first = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.05)
    strange = await put(jobs, other, "echo")
    ids = {await put(jobs, scope, "echo") for _ in range(20)}
    states: dict[str, str] = {}
    job = await first
    async with asyncio.timeout(20):
        while (states := states | {job.id: job.state}) != dict.fromkeys(ids, "succeeded"):
            job = await anext(changes)
    await changes.aclose()
    assert strange not in states


async def test_another_tenant_sees_nothing(start: Start, scope: Scope, other: Scope) -> None:
    jobs = await start(JobKind("echo", echo), work=False)
    job_id = await put(jobs, scope, "echo")
    for call in (jobs.get, jobs.cancel, jobs.retry, jobs.wait):
        with pytest.raises(Missing):
            await call(other, job_id)
    with pytest.raises(Missing):
        await anext(jobs.events(other, job_id))
    with pytest.raises(Missing):
        await put(jobs, other, "echo", {}, parent_id=job_id)
    assert await jobs.list(other) == ([], None)
    assert (await jobs.counts(other))["queued"] == 0
    assert (await jobs.counts(scope))["queued"] == 1


async def test_lists_are_paged_and_filtered(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo), JobKind("batch"), work=False)
    ids = [await put(jobs, scope, "echo" if n % 2 else "batch") for n in range(25)]
    found: list[str] = []
    cursor = None
    while True:
        page, cursor = await jobs.list(scope, limit=10, cursor=cursor)
        found += [job.id for job in page]
        if cursor is None:
            break
    assert sorted(found) == sorted(ids)
    assert found == sorted(ids, reverse=True)
    assert len((await jobs.list(scope, kind="echo"))[0]) == 12
    assert len((await jobs.list(scope, state="waiting"))[0]) == 13
    assert (await jobs.list(scope, state="failed"))[0] == []


async def test_waiting_has_an_end(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo), work=False)
    with pytest.raises(TimeoutError):
        await jobs.wait(scope, await put(jobs, scope, "echo"), timeout=0.05)


# -- ending


async def test_draining_lets_jobs_finish_and_gives_the_rest_back_unblamed(start: Start, scope: Scope) -> None:
    async def short(context: Context) -> dict[str, Any]:
        context.emit("text", {"text": "begun"})
        await asyncio.sleep(0.1)
        return {}

    jobs = await start(JobKind("short", short), JobKind("forever", forever))
    quick, slow = await put(jobs, scope, "short"), await put(jobs, scope, "forever")
    await begun(jobs, scope, quick)
    await begun(jobs, scope, slow)
    late = None
    drained = asyncio.create_task(jobs.drain())
    await asyncio.sleep(0.02)
    late = await put(jobs, scope, "short")
    await drained
    assert (await jobs.get(scope, quick)).state == "succeeded"
    assert (await jobs.get(scope, late)).state == "queued"
    job = await jobs.get(scope, slow)
    assert (job.state, job.failures, job.crashes) == ("queued", 0, 0)


async def test_closing_lets_followers_go(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("forever", forever))
    job_id = await put(jobs, scope, "forever")
    following = jobs.events(scope, job_id)
    async with asyncio.timeout(20):
        assert [(await anext(following)).type for _ in range(2)] == ["state", "text"]
    left = asyncio.create_task(rest(following))
    waiting = asyncio.create_task(jobs.wait(scope, job_id))
    await asyncio.sleep(0)
    await jobs.close()
    assert "done" not in [event.type for event in await left]
    with pytest.raises(Unavailable):
        await waiting


# Whose


async def test_a_job_is_seen_by_whom_it_belongs_to_and_by_those_who_may_see_all(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo), JobKind("common", echo, shared=True))
    colleague, nobody = Scope(scope.tenant, "usr_eve"), Scope(scope.tenant)
    private, common = await put(jobs, scope, "echo"), await put(jobs, scope, "common")
    await ended(jobs, scope, private)
    for other in (colleague, nobody):
        assert [job.id for job in (await jobs.list(other))[0]] == [common]
        assert (await jobs.get(other, common)).user == scope.user
        for refused in (
            jobs.get(other, private),
            jobs.cancel(other, private),
            jobs.retry(other, private),
            jobs.wait(other, private, 5),
            anext(jobs.events(other, private)),
        ):
            with pytest.raises(Missing):
                await refused
        assert (await jobs.get(other, private, everyone=True)).id == private
        assert len((await jobs.list(other, everyone=True))[0]) == 2
        assert await anext(jobs.events(other, private, everyone=True))
    with pytest.raises(Missing):
        await jobs.get(Scope("globex", scope.user), private, everyone=True)
    assert {job.id for job in (await jobs.list(scope))[0]} == {private, common}


async def test_changes_tell_of_what_is_seen(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo), work=False)
    colleague = Scope(scope.tenant, "usr_eve")
    told = asyncio.create_task(anext(jobs.changes(colleague)))
    await asyncio.sleep(0.05)
    await put(jobs, scope, "echo")
    mine = await put(jobs, colleague, "echo")
    assert (await asyncio.wait_for(told, 30)).id == mine


async def test_a_handler_knows_on_whose_behalf_and_with_which_key(start: Start) -> None:
    seen: list[Scope] = []

    async def look(context: Context) -> None:
        seen.append(context.scope)
        await context.children("leaf", [{}])

    async def leaf(context: Context) -> None:
        seen.append(context.scope)

    jobs = await start(JobKind("look", look), JobKind("leaf", leaf))
    asker = Scope("acme", "usr_ada", "key_1")
    job_id = await put(jobs, asker, "look")
    await ended(jobs, asker, job_id)
    assert seen[0] == Scope("acme", "usr_ada", "key_1", job_id)
    assert (seen[1].user, seen[1].key) == ("usr_ada", "key_1")


async def test_an_idempotency_key_is_its_senders_own(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo), work=False)
    mine = await put(jobs, scope, "echo", idempotency_key="once")
    assert await put(jobs, scope, "echo", idempotency_key="once") == mine
    assert await put(jobs, Scope(scope.tenant, "usr_eve"), "echo", idempotency_key="once") != mine


async def test_leaving(start: Start) -> None:
    """Local mode ends, a person goes, a tenant goes."""
    jobs = await start(JobKind("echo", echo), JobKind("common", echo, shared=True))
    local, eve, other = Scope(), Scope("default", "usr_eve"), Scope("globex", "usr_eve")
    found = await put(jobs, local, "echo")
    await ended(jobs, local, found)
    await jobs.database.write(leaving.adopt, "usr_ada")
    assert (await jobs.get(Scope("default", "usr_ada"), found)).user == "usr_ada"
    private, common, elsewhere = (
        await put(jobs, eve, "echo"), await put(jobs, eve, "common"), await put(jobs, other, "echo"),
    )  # fmt: skip
    for who, job_id in ((eve, private), (eve, common), (other, elsewhere)):
        await ended(jobs, who, job_id)
    await jobs.database.write(jobs.erase_user, "usr_eve")
    for who, job_id in ((eve, private), (other, elsewhere)):
        with pytest.raises(Missing):
            await jobs.get(who, job_id, everyone=True)
    assert (await jobs.get(eve, common)).user is None
    await jobs.database.write(leaving.erase_tenant, Scope())
    assert (await jobs.list(Scope(), everyone=True))[0] == []
    rows = await jobs.database.read(lambda session: session.execute(text("SELECT COUNT(*) FROM job_events")).scalar())
    assert rows == 0


# -- work in bulk


async def test_bulk_leaves_places_to_whoever_waits_for_an_answer(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("long", forever), JobKind("echo", echo), tenant_cap=10)
    await jobs.database.write(lambda session: jobs.enqueue_many(session, scope, "long", [{}] * 20, priority=-1))
    await until(lambda: all_run(jobs, 8))
    job = await ended(jobs, scope, await put(jobs, scope, "echo"))
    assert job.state == "succeeded"
    counts = await jobs.counts(scope)
    assert (counts["running"], counts["queued"]) == (8, 12)


async def test_bulk_leaves_slots_to_other_tenants(start: Start, scope: Scope, other: Scope) -> None:
    jobs = await start(JobKind("long", forever), JobKind("echo", echo), io_slots=5)
    await jobs.database.write(lambda session: jobs.enqueue_many(session, scope, "long", [{}] * 20, priority=-100))
    await until(lambda: all_run(jobs, 4))
    job = await ended(jobs, other, await put(jobs, other, "echo"))
    assert job.state == "succeeded"
    assert (await jobs.counts(scope))["running"] == 4


async def test_a_single_slot_serves_bulk_too(start: Start, scope: Scope) -> None:
    jobs = await start(JobKind("echo", echo), io_slots=1, tenant_cap=1)
    assert (await ended(jobs, scope, await put(jobs, scope, "echo", priority=-5))).state == "succeeded"


async def test_a_room_concludes_a_parent_that_is_fed_a_few_at_a_time(start: Start, scope: Scope) -> None:
    engine: list[LocalJobs] = []
    run: list[str] = []

    async def begin(context: Context) -> Done:
        def feed(session: Session) -> None:
            run.append(engine[0].enqueue(session, context.scope, "part", {"n": 0}, parent_id=context.job_id))

        return Done({"begun": True}, feed)

    async def part(context: Context) -> Done:
        number, parent = context.payload["n"], (await engine[0].list(context.scope, kind="run"))[0][0].id

        def feed(session: Session) -> None:
            if number < 5:
                engine[0].enqueue(session, context.scope, "part", {"n": number + 1}, parent_id=parent)
                engine[0].tell_progress(session, context.scope, parent, number + 1, 6)
            else:
                engine[0].conclude(session, context.scope, parent, {"parts": 6})

        return Done({}, feed)

    jobs = await start(JobKind("run", begin, concludes=True), JobKind("part", part))
    engine.append(jobs)
    job = await ended(jobs, scope, await put(jobs, scope, "run"))
    assert (job.state, job.result, job.children) == ("succeeded", {"parts": 6}, {"succeeded": 6})
    assert job.progress is not None
    assert (job.progress.done, job.progress.total) == (5, 6)
    assert [event.type for event in await story(jobs, scope, job.id)].count("done") == 1


async def test_cancelling_such_a_parent_ends_what_it_was_fed(start: Start, scope: Scope) -> None:
    engine: list[LocalJobs] = []

    async def begin(context: Context) -> Done:
        return Done({}, lambda session: engine[0].enqueue(session, context.scope, "long", {}, parent_id=context.job_id))

    jobs = await start(JobKind("run", begin, concludes=True), JobKind("long", forever))
    engine.append(jobs)
    parent = await put(jobs, scope, "run")
    await until(lambda: is_in(jobs, scope, parent, "waiting"))
    [child] = (await jobs.list(scope, kind="long"))[0]
    await jobs.cancel(scope, parent)
    assert (await ended(jobs, scope, child.id)).state == "cancelled"
    assert (await jobs.get(scope, parent)).state == "cancelled"


# -- what many leave to be written at once


async def test_what_jobs_keep_is_written_with_their_ends_for_many_at_once(start: Start, scope: Scope) -> None:
    written: list[list[int]] = []
    gate = asyncio.Event()

    def keep(session: Session, kept: Sequence[Kept]) -> None:
        session.execute(text("SELECT 1"))
        written.append([each.value for each in kept])

    async def handler(context: Context) -> Done:
        await gate.wait()
        return Done({"n": context.payload["n"]}, kept=context.payload["n"])

    jobs = await start(JobKind("kept", handler, keep=keep))
    ids = await jobs.database.write(
        lambda session: jobs.enqueue_many(session, scope, "kept", [{"n": n} for n in range(40)])
    )
    await until(lambda: all_run(jobs, 40))
    gate.set()
    assert [(await ended(jobs, scope, each)).result for each in ids] == [{"n": n} for n in range(40)]
    assert sorted(n for group in written for n in group) == list(range(40))
    assert len(written) < 40


async def test_one_that_cannot_be_kept_spoils_no_other(start: Start, scope: Scope) -> None:
    gate = asyncio.Event()

    def keep(session: Session, kept: Sequence[Kept]) -> None:
        if any(each.value == 3 for each in kept):
            raise Invalid("three is not kept")

    async def handler(context: Context) -> Done:
        await gate.wait()
        return Done({}, kept=context.payload["n"])

    jobs = await start(JobKind("kept", handler, keep=keep))
    ids = await jobs.database.write(
        lambda session: jobs.enqueue_many(session, scope, "kept", [{"n": n} for n in range(10)])
    )
    gate.set()
    states = [(await ended(jobs, scope, each)).state for each in ids]
    assert states == ["failed" if n == 3 else "succeeded" for n in range(10)]
