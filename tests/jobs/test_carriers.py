"""Events of one process reach the followers in another: through Redis, through the table, whatever goes away."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.redis_server import RedisServer, redis_server

from terrace import settings
from terrace.errors import Invalid
from terrace.jobs.base import Context, EventId, JobEvent, JobKind
from terrace.jobs.carriers import Carrier, Ears, TableCarrier, open_carrier
from terrace.jobs.carriers.messages import MAX_BYTES, Outbox, hear
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.journal import Notice
from terrace.settings import Jobs as Options
from terrace.storage import Database
from terrace.types import Scope

TOKENS = 40
Process = Callable[..., Awaitable[LocalJobs]]


async def talk(context: Context) -> None:
    for n in range(TOKENS):
        context.emit("text", {"n": n})
        await asyncio.sleep(context.payload.get("pause", 0.002))


class Counting:
    """A database that counts how often it is asked, and answers so many at once."""

    def __init__(self, database: Database, at_once: int) -> None:
        self._database = database
        self._at_once = asyncio.Semaphore(at_once)
        self.dialect = database.dialect
        self.reads = 0

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        self.reads += 1
        async with self._at_once:
            return await self._database.read(work, *args, **kwargs)

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        return await self._database.write(work, *args, **kwargs)

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._database.watch(wake)

    async def close(self) -> None:
        await self._database.close()


class Forgetful:
    """A carrier that believes it carries, and loses half of what it is given."""

    carries = True
    state = "ok: mostly"

    def __init__(self, chance: random.Random) -> None:
        self.other: Forgetful | None = None
        self.ears: Ears | None = None
        self._chance = chance

    def start(self, ears: Ears) -> None:
        self.ears = ears

    def tell(self, notice: Notice) -> None:
        if self.other is not None and self.other.ears is not None and self._chance.random() < 0.5:
            self.other.ears.heard(notice)

    async def close(self) -> None:
        self.ears = None


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
async def process(elsewhere: Callable[[], Database]) -> AsyncIterator[Process]:
    """`await process(carrier, work=True)`: an engine with a database connection of its own, as another process has."""
    async with AsyncExitStack() as stack:

        async def process(carrier: Carrier, *, work: bool = False, at: Database | None = None) -> LocalJobs:
            own = at or elsewhere()
            jobs = LocalJobs(own, Options(drain=0.1), [JobKind("talk", talk)])
            jobs.carry(carrier)
            stack.push_async_callback(own.close)
            stack.push_async_callback(jobs.close)
            if work:
                await jobs.start()
            return jobs

        yield process


def through(server: RedisServer, prefix: str) -> Carrier:
    return open_carrier(settings.Redis(url=server.url, prefix=prefix))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def carrying(*all_: LocalJobs) -> None:
    await until(lambda: all(jobs.carrier.carries for jobs in all_))


async def put(jobs: LocalJobs, scope: Scope, count: int = 1, **payload: float) -> list[str]:
    return await jobs.database.write(lambda session: jobs.enqueue_many(session, scope, "talk", [payload] * count))


async def tokens(jobs: LocalJobs, scope: Scope, job_id: str) -> list[int]:
    async with asyncio.timeout(30):
        return [event.data["n"] async for event in jobs.events(scope, job_id) if event.type == "text"]


async def test_events_and_wake_ups_go_through_redis(process: Process, redis: RedisServer, scope: Scope) -> None:
    asker, worker = await process(through(redis, "one")), await process(through(redis, "one"), work=True)
    asker.listen()
    await carrying(asker, worker)
    ids = await put(asker, scope, 10)
    heard = await asyncio.gather(*(tokens(asker, scope, each) for each in ids))
    assert heard == [list(range(TOKENS))] * 10
    assert (await asker.wait(scope, ids[0], timeout=30)).state == "succeeded"
    assert asker.carrier.state == "ok: through Redis"


async def test_installations_with_different_prefixes_do_not_hear_each_other(
    process: Process, redis: RedisServer, scope: Scope
) -> None:
    class Nothing:
        def follows(self, tenant: str, job_id: str) -> bool:
            raise AssertionError("this is another installation's")

        def heard(self, notice: Notice) -> None:
            raise AssertionError("this is another installation's")

        missed = follows

        def uncertain(self) -> None:
            pass

    stranger = through(redis, "theirs")
    stranger.start(Nothing())
    worker = await process(through(redis, "ours"), work=True)
    await carrying(worker)
    [job_id] = await put(worker, scope)
    assert await tokens(worker, scope, job_id) == list(range(TOKENS))
    await asyncio.sleep(0.05)
    await stranger.close()


async def test_redis_goes_away_and_returns_and_nobody_misses_anything(process: Process, scope: Scope) -> None:
    with redis_server() as server:
        asker, worker = await process(through(server, "t")), await process(through(server, "t"), work=True)
        asker.listen()
        await carrying(asker, worker)
        following = [asyncio.create_task(tokens(asker, scope, each)) for each in await put(asker, scope, 20)]
        await asyncio.sleep(0.05)
        server.kill()
        later = await put(asker, scope, 5)
        following += [asyncio.create_task(tokens(asker, scope, each)) for each in later]
        assert await asyncio.gather(*following) == [list(range(TOKENS))] * 25
        assert not asker.carrier.carries
        assert asker.carrier.state.startswith("ok: through the database; Redis is away since 2")
        server.start()
        await carrying(asker, worker)
        [last] = await put(asker, scope)
        assert await tokens(asker, scope, last) == list(range(TOKENS))


async def test_redis_may_come_after_us_and_forget_everything(process: Process, scope: Scope) -> None:
    with redis_server() as server:
        server.kill()
        asker, worker = await process(through(server, "t")), await process(through(server, "t"), work=True)
        [first] = await put(asker, scope)
        assert await tokens(asker, scope, first) == list(range(TOKENS))
        server.start()
        await carrying(asker, worker)
        [second] = await put(asker, scope)
        following = asyncio.create_task(tokens(asker, scope, second))
        await asyncio.sleep(0.03)
        await asker.carrier._redis.flushall()  # type: ignore[attr-defined]
        assert await following == list(range(TOKENS))


async def test_what_a_carrier_loses_is_read_from_the_table(process: Process, scope: Scope) -> None:
    one, two = Forgetful(random.Random(4)), Forgetful(random.Random(5))
    one.other, two.other = two, one
    asker, worker = await process(one), await process(two, work=True)
    ids = await put(asker, scope, 10)
    assert await asyncio.gather(*(tokens(asker, scope, each) for each in ids)) == [list(range(TOKENS))] * 10
    assert await asyncio.gather(*(asker.wait(scope, each, timeout=30) for each in ids))
    await until(lambda: worker.running == 0)


@pytest.mark.parametrize("at_once", [100, 2], ids=["quick", "slow"])
async def test_fifty_followers_of_another_process_share_one_read(
    process: Process, elsewhere: Callable[[], Database], scope: Scope, at_once: int
) -> None:
    counting = Counting(elsewhere(), at_once)
    asker, worker = await process(TableCarrier(), at=counting), await process(TableCarrier())
    ids = await put(asker, scope, 50, pause=0.025)
    following = [asyncio.create_task(tokens(asker, scope, each)) for each in ids]
    waiting = [asyncio.create_task(asker.wait(scope, each, timeout=30)) for each in ids]
    await until(lambda: counting.reads >= 100)  # each looks for itself when it begins
    begun = counting.reads
    await worker.start()
    assert await asyncio.gather(*following) == [list(range(TOKENS))] * 50
    assert {job.state for job in await asyncio.gather(*waiting)} == {"succeeded"}
    # Alone, each of the hundred would have read some twenty times, and does when those who read make each other.
    assert counting.reads - begun < 300 + asker.tail.reads, "a few for each at its begin and end, and one for all"


async def test_a_tenants_changes_reach_another_process(process: Process, redis: RedisServer, scope: Scope) -> None:
    for carrier in (lambda: TableCarrier(), lambda: through(redis, "changes")):
        asker, worker = await process(carrier()), await process(carrier(), work=True)
        changes = asker.changes(scope)
        first = asyncio.create_task(anext(changes))
        await asyncio.sleep(0.05)
        [job_id] = await put(worker, scope)
        async with asyncio.timeout(30):
            changed = await first
            while (changed.id, changed.state) != (job_id, "succeeded"):
                changed = await anext(changes)
        await changes.aclose()
        await worker.close()


def test_which_carrier() -> None:
    assert isinstance(open_carrier(settings.Redis()), TableCarrier)
    with pytest.raises(Invalid, match="redis://host"):
        open_carrier(settings.Redis(url="http://here"))


# -- messages


class Hearing:
    def __init__(self, follows: Callable[[str], bool]) -> None:
        self._follows = follows
        self.told: list[Notice] = []
        self.too_much: set[tuple[str, str]] = set()

    def follows(self, tenant: str, job_id: str) -> bool:
        return self._follows(job_id)

    def heard(self, notice: Notice) -> None:
        self.told.append(notice)

    def missed(self, tenant: str, job_id: str) -> None:
        self.too_much.add((tenant, job_id))

    def uncertain(self) -> None:
        raise AssertionError("nobody came or went")


events = st.builds(
    JobEvent,
    st.builds(EventId, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(-(2**60), 2**60) | st.none(), max_size=4),
)
notices = st.builds(
    Notice,
    st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), st.lists(events, max_size=4), max_size=3),
    st.sets(st.sampled_from("abc")),
    st.booleans(),
    st.lists(st.sampled_from("xyz"), max_size=2),
)


@given(st.lists(notices, max_size=4))
@hypothesis.settings(max_examples=50)
def test_a_message_says_what_the_notices_said(told: list[Notice]) -> None:
    outbox, hearing = Outbox(), Hearing(lambda job_id: job_id != "z")
    for each in told:
        outbox.add(each)
    message = outbox.take()
    assert outbox.take() is None
    if message is None:
        assert not any(each.tenants or each.queued or each.cancelling or each.events for each in told)
        return
    hear(message, hearing)
    [heard] = hearing.told
    expected: dict[tuple[str, str], list[JobEvent]] = {}
    for each in told:
        for where, theirs in each.events.items():
            if where[1] != "z":
                expected.setdefault(where, []).extend(theirs)
    assert heard.events == expected
    assert heard.tenants == {tenant for each in told for tenant in each.tenants}
    assert heard.queued == any(each.queued for each in told)
    assert heard.cancelling == [job_id for each in told for job_id in each.cancelling]


@pytest.mark.parametrize("value", ["y" * MAX_BYTES, 2**70])
def test_what_is_too_large_to_be_carried_is_only_named(value: str | int) -> None:
    outbox, hearing = Outbox(), Hearing(lambda job_id: True)
    outbox.add(Notice({("a", "x"): [JobEvent(EventId(1, 1), "text", {"value": value})]}, {"a"}))
    outbox.add(Notice({("a", "y"): [JobEvent(EventId(1, 1), "text", {})]}))
    message = outbox.take()
    assert message is not None
    assert len(message) < 100
    hear(message, hearing)
    assert hearing.told == [Notice({}, {"a"})]
    assert hearing.too_much == {("a", "x"), ("a", "y")}
