"""Limits over several processes: each of these has a journal and a connection of its own, as a process has."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.accounts.limits_house import ACME, ADA, Bench, demand, done, people, shared, unused
from tests.redis_server import RedisServer, redis_server

from terrace.accounts.limits.shared import database
from terrace.accounts.limits.shared.base import Key, Line, Park, Reply, Trip
from terrace.accounts.limits.shared.booking import Booking
from terrace.accounts.limits.shared.database import DatabaseStore, bury
from terrace.errors import Limited
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.database import own_locks
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import moment, now

pytestmark = pytest.mark.faults

Houses = Callable[[int], Awaitable[list[Bench]]]
Mortal = tuple[RedisServer, Houses]
TODAY = now()
DAY_KEY = ("acme", f"tenant|tokens_per_day|{moment(TODAY).date()}")
PLACES = ["file", "database", "redis"]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def opener(request: pytest.FixtureRequest, kind: str) -> Callable[[], Database]:
    """Opens the same database again and again."""
    if kind != "file":
        url: str = request.getfixturevalue("postgres_url")
        return lambda: PostgreSQLDatabase(url, connections=2)
    path: Path = request.getfixturevalue("tmp_path") / "terrace.db"
    shutil.copy(request.getfixturevalue("migrated"), path)
    return lambda: SQLiteDatabase(path, durability="normal")


@asynccontextmanager
async def town(opens: Callable[[], Database], folder: Path, url: str = "") -> AsyncIterator[Houses]:
    make = shared(url)
    async with AsyncExitStack() as stack:

        async def build(count: int) -> list[Bench]:
            benches = []
            for number in range(count):
                bench = Bench(opens(), folder, make, clock=now)  # type: ignore[arg-type]
                stack.push_async_callback(bench.database.close)
                if number == 0:
                    await bench.database.write(people)
                await bench.open()
                stack.push_async_callback(bench.close)
                benches.append(bench)
            return benches

        yield build


@pytest.fixture(params=PLACES)
async def houses(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Houses]:
    kind: str = request.param
    url = request.getfixturevalue("redis").url if kind == "redis" else ""
    async with town(opener(request, kind), tmp_path, url) as build:
        yield build


@pytest.fixture
async def mortal(tmp_path: Path, postgres_url: str) -> AsyncIterator[Mortal]:
    """Processes that meet in a Redis which a test may kill."""
    with redis_server() as server:
        async with town(lambda: PostgreSQLDatabase(postgres_url, connections=2), tmp_path, server.url) as build:
            yield server, build


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """There is no event for what another process notices."""
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def in_redis(benches: list[Bench]) -> None:
    """Until all meet there."""

    async def true() -> bool:
        return all(bench.limits.state == "ok: through Redis" for bench in benches)  # type: ignore[attr-defined]

    await until(true)


async def without_redis(benches: list[Bench]) -> None:
    """Until all know that it is away."""

    async def true() -> bool:
        return all("Redis is away since" in bench.limits.state for bench in benches)  # type: ignore[attr-defined]

    await until(true)


async def at_rest(benches: list[Bench]) -> None:
    """Until these have nothing, and all know."""

    async def true() -> bool:
        return not any(bench.limits._sharing._live for bench in benches)  # type: ignore[attr-defined]

    await until(true)


async def limit(benches: list[Bench], **values: float | None) -> None:
    """Set, and known by all."""
    await benches[0].limits.change(ACME, values, "terminal")  # type: ignore[arg-type]
    wanted = sorted(name for name, value in values.items() if value is not None)

    async def known() -> bool:
        return all([sorted(each.name for each in await bench.limits.show(ACME)) == wanted for bench in benches])

    await until(known)


async def spend(benches: list[Bench], calls: int, tokens: int = 100, seconds: float = 0.02) -> int:
    """How many of so many calls at once were let pass; each comes to what it reserved."""

    async def one(bench: Bench) -> bool:
        try:
            call = await bench.limits.wait(ADA, demand(tokens), 0.0)
        except Limited:
            return False
        await asyncio.sleep(seconds)
        call.end(done(tokens))
        return True

    return sum(await asyncio.gather(*(one(benches[number % len(benches)]) for number in range(calls))))


async def silence(bench: Bench) -> None:
    """It says nothing any more and hands nothing back, as after `kill -9`."""
    sharing = bench.limits._sharing  # type: ignore[attr-defined]
    sharing._task.cancel()
    await asyncio.wait([sharing._task])


async def booked(bench: Bench) -> int:
    work = "SELECT COALESCE(SUM(input_tokens + output_tokens), 0) FROM usage_days"
    return int(await bench.database.read(lambda session: session.execute(text(work)).scalar_one()))


async def test_a_budget_is_used_up_by_all_together_and_never_passed(houses: Houses) -> None:
    benches = await houses(3)
    await limit(benches, tokens_per_day=3000)
    assert await spend(benches, 90) == 30
    for bench in benches:
        await bench.ledger.flush()
    assert await booked(benches[0]) == 3000
    assert [each.used for bench in benches for each in await bench.limits.show(ACME)] == [3000, 3000, 3000]


async def test_one_gets_what_lies_idle_with_the_others(houses: Houses) -> None:
    benches = await houses(3)
    await limit(benches, tokens_per_day=25_000)
    assert await spend(benches, 30) == 30, "each has some slack now"
    left = 220

    async def all_spent() -> bool:
        nonlocal left
        left -= await spend(benches[:1], left)
        return not left

    await until(all_spent)  # on a busy machine others may take longer to hand back than a call waits for
    assert await spend(benches, 3) == 0


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "money_per_month"])
async def test_every_kind_of_limit_is_one_for_all(houses: Houses, name: str) -> None:
    benches = await houses(2)
    await limit(benches, **{name: {"requests_per_minute": 7, "tokens_per_minute": 700}.get(name, 0.0007)})
    if name == "requests_per_minute":
        asked = [bench.limits.count_waiting(ADA, 0.0) for bench in benches * 10]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(answer is None for answer in answers) == 7
        assert all(isinstance(answer, Limited) for answer in answers if answer is not None)
    else:
        assert await spend(benches, 20) == 7


async def test_so_many_at_a_time_over_all_and_a_place_goes_to_whoever_waits(houses: Houses) -> None:
    first, second = await houses(2)
    await limit([first, second], concurrent_requests=2)
    calls = [await bench.limits.wait(ADA, demand(), 0.0) for bench in (first, second)]
    with pytest.raises(Limited):
        await first.limits.wait(ADA, demand(), 0.0)
    waiting = asyncio.create_task(first.limits.wait(ADA, demand(), 20.0))
    await asyncio.sleep(0.05)
    calls[1].end(unused())
    (await asyncio.wait_for(waiting, 20)).end(unused())
    calls[0].end(unused())


async def test_room_kept_for_a_job_is_found_by_whichever_process_runs_it(houses: Houses) -> None:
    asked_at, run_by = await houses(2)
    await limit([asked_at, run_by], tokens_per_day=1000)
    (await asked_at.limits.hold_waiting(ADA, demand(800))).bind("job_1")
    (await asked_at.limits.hold_waiting(ADA, demand(100))).bind("job_2")
    await asked_at.limits.show(ACME)  # in a trip after the one that tells of the holds
    with pytest.raises(Limited):
        await run_by.limits.wait(ADA, demand(101), 0.0)
    job = type(ADA)("acme", "usr_ada", None, "job_1")
    call = await run_by.limits.wait(job, demand(900), 0.0)
    call.end(done(300))
    for bench in (run_by, asked_at):
        bench.limits.release("job_1")
        bench.limits.release("job_2")
    left = 7

    async def all_spent() -> bool:
        nonlocal left
        left -= await spend([asked_at], left)
        return not left

    await until(all_spent)  # who released it says so soon, on a busy machine a little later
    assert await spend([asked_at], 1) == 0


async def test_who_goes_leaves_what_it_spent_and_nothing_else(houses: Houses) -> None:
    benches = await houses(2)
    await limit(benches, tokens_per_day=1000, tokens_per_minute=1000)
    assert await spend(benches[:1], 4) == 4
    call = await benches[0].limits.wait(ADA, demand(500), 0.0)
    call.end(done(100))
    await benches[0].close()
    assert await spend(benches[1:], 10) == 5
    await benches[0].open()


async def test_what_a_dead_process_may_have_spent_counts_until_it_is_booked(houses: Houses) -> None:
    alive, dead = await houses(2)
    await limit([alive, dead], tokens_per_day=1000)
    await dead.limits.wait(ADA, demand(400), 0.0)
    await silence(dead)
    shares = await alive.database.read(lambda session: session.execute(text("SELECT * FROM limit_shares")).all())
    await alive.database.write(lambda session: bury(session, dead.ledger.id, booked=False, until=now() + 60))
    assert await spend([alive], 10) == 5, "its call, and what it had drawn ahead"
    assert len(shares) <= 2


async def test_a_changed_limit_holds_everywhere_within_seconds(houses: Houses) -> None:
    benches = await houses(2)
    await limit(benches, tokens_per_day=100_000)
    assert await spend(benches, 4) == 4
    await benches[0].limits.change(ACME, {"tokens_per_day": 500}, "terminal")

    async def lowered() -> bool:
        return [each.value for each in await benches[1].limits.show(ACME)] == [500]

    async def gone() -> bool:
        return not await benches[0].limits.show(ACME)

    await until(lowered)
    assert await spend(benches, 10) == 1
    await benches[1].limits.change(ACME, {"tokens_per_day": None}, "terminal")
    await until(gone)
    assert await spend(benches, 10) == 10


async def test_redis_goes_and_comes_and_nothing_is_granted_twice(mortal: Mortal) -> None:
    redis, build = mortal
    benches = await build(3)
    await in_redis(benches)
    await limit(benches, tokens_per_day=5000)
    assert await spend(benches, 15) == 15
    redis.kill()
    assert await spend(benches, 15, seconds=0.5) == 15
    await without_redis(benches)
    redis.start()
    await in_redis(benches)
    assert await spend(benches, 60) == 20
    for bench in benches:
        await bench.ledger.flush()
    assert await booked(benches[0]) == 5000


async def test_nobody_waits_for_those_who_have_nothing_to_say(mortal: Mortal) -> None:
    """Where all meet changes twice; two of three have neither calls nor anything left of earlier ones."""
    redis, build = mortal
    benches = await build(3)
    busy, idle = benches[:1], benches[1:]
    await in_redis(benches)
    await limit(benches, tokens_per_day=5000)
    assert await spend(busy, 5) == 5
    await at_rest(idle)
    redis.kill()
    assert await spend(busy, 5) == 5
    await at_rest(idle)
    redis.start()
    await in_redis(benches)
    assert await spend(busy, 5) == 5


async def test_what_was_booked_by_those_who_have_nothing_to_say_counts(mortal: Mortal) -> None:
    """Who books last knows all that is booked, and who asks first in the new Redis does not."""
    redis, build = mortal
    benches = await build(2)
    await in_redis(benches)
    await limit(benches, tokens_per_day=5000)
    for bench in benches:
        assert await spend([bench], 5) == 5
        await bench.ledger.flush()
    await at_rest(benches)
    redis.kill()
    await without_redis(benches)
    redis.start()
    await in_redis(benches)
    assert await spend(benches[:1], 60) == 40


async def test_what_was_used_of_the_minute_counts_once_where_all_meet_next(mortal: Mortal) -> None:
    """Whoever used it says so there, and the ledger knows these calls too."""
    redis, build = mortal
    benches = await build(2)
    await in_redis(benches)
    await limit(benches, tokens_per_minute=1000)
    assert await spend(benches, 6) == 6
    for bench in benches:
        await bench.ledger.flush()
    redis.kill()
    await without_redis(benches)
    assert await spend(benches, 2) == 2
    redis.start()
    await in_redis(benches)
    assert await spend(benches, 4) == 2


async def test_what_is_kept_for_a_job_while_others_are_asked_counts_once(
    houses: Houses, monkeypatch: pytest.MonkeyPatch
) -> None:
    benches = await houses(2)
    await limit(benches, tokens_per_day=1000)
    hold = await benches[0].limits.hold_waiting(ADA, demand(700))
    under_way, go_on = asyncio.Event(), asyncio.Event()
    store = benches[0].limits._sharing._store  # type: ignore[attr-defined]
    trade = store.trade

    async def slowly(trip: Trip) -> Reply:
        reply: Reply = await trade(trip)
        under_way.set()
        await go_on.wait()
        return reply

    monkeypatch.setattr(store, "trade", slowly)
    await under_way.wait()
    hold.bind("job_1")
    showing = asyncio.create_task(benches[0].limits.show(ACME))
    await asyncio.sleep(0)  # what others use is asked for in the next trip
    go_on.set()
    assert [each.used for each in await showing] == [700]
    assert await spend(benches[1:], 3) == 3
    assert await spend(benches, 1) == 0


async def test_what_is_booked_while_more_is_asked_for_does_not_count_twice(
    houses: Houses, monkeypatch: pytest.MonkeyPatch
) -> None:
    benches = await houses(2)
    await limit(benches, tokens_per_day=1000)
    (await benches[0].limits.wait(ADA, demand(900), 0.0)).end(done(900))
    store = benches[0].limits._sharing._store  # type: ignore[attr-defined]
    trade = store.trade

    async def books_first(trip: Trip) -> Reply:
        """What is about to be said is no longer so then."""
        if any(line.wish for line in trip.lines):
            await benches[0].ledger.flush()
        reply: Reply = await trade(trip)
        return reply

    monkeypatch.setattr(store, "trade", books_first)
    assert await spend(benches[:1], 2) == 1


async def test_who_booked_knows_of_all_that_was_booked_before(postgres_url: str) -> None:
    """Two book at the same time, and neither sees what the other adds: the one whose sum comes second waits for the
    first, and then has it in its own. Redis knows what is booked from these sums only."""
    added, go_on = threading.Event(), threading.Event()

    @own_locks
    def makes(session: Session) -> None:
        database.pools(session, [DAY_KEY], at=0.0)

    @own_locks
    def books_slowly(session: Session) -> dict[Key, int]:
        latest = database.add(session, {DAY_KEY: 500}, holder=1)
        added.set()
        go_on.wait(30)
        return latest

    @own_locks
    def books(session: Session) -> dict[Key, int]:
        return database.add(session, {DAY_KEY: 300}, holder=2)

    async def waits() -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        return bool(await third.read(lambda session: session.execute(text(waiting)).scalar_one()))

    async with AsyncExitStack() as stack:
        first, second, third = (PostgreSQLDatabase(postgres_url, connections=1) for _ in range(3))
        for each in (first, second, third):
            stack.push_async_callback(each.close)
        await first.write(makes)
        one = asyncio.create_task(first.write(books_slowly))
        await asyncio.to_thread(added.wait, 30)
        two = asyncio.create_task(second.write(books))
        try:
            await until(waits)
        finally:
            go_on.set()
        assert (await one, await two) == ({DAY_KEY: 500}, {DAY_KEY: 800})


async def test_what_is_booked_for_a_dead_process_meanwhile_takes_nothing_from_what_we_booked(
    any_database: Database,
) -> None:
    heard: list[dict[Key, int]] = []
    booking = Booking(lambda days, latest: heard.append(latest))
    booking.shared = True
    days = {("acme", int(TODAY // 86_400), "", "", "gpt"): [1, 0, 0, 500, 0, 0, 0]}
    await any_database.write(own_locks(lambda session: database.pools(session, [DAY_KEY], at=0.0)))
    await any_database.write(own_locks(lambda session: booking.booking(session, 1, days)))
    await any_database.write(own_locks(lambda session: booking.booking(session, 2, {})))
    await any_database.write(own_locks(lambda session: booking.buried(session, 2)))
    booking.booked(1, days)
    assert heard == [{DAY_KEY: 500}]


async def test_a_hold_lapses_and_a_lost_answer_is_put_right(any_database: Database) -> None:
    store = DatabaseStore(any_database)
    await store.trade(Trip(1, parks=[Park("job_1", {DAY_KEY: 900}, seconds=0.0)]))
    reply = await store.trade(Trip(2, [Line(DAY_KEY, 1000, held=0, least=1000, wish=1000)]))
    assert reply.found[DAY_KEY].granted == 1000, "the hold has lapsed"
    reply = await store.trade(Trip(2, [Line(DAY_KEY, 1000, held=0, least=600, wish=600)]))
    assert reply.found[DAY_KEY].granted == 600, "it never heard of the first answer, and says that it holds nothing"
    reply = await store.trade(Trip(3, [Line(DAY_KEY, 1000, held=0, least=100, wish=500, slack=500)]))
    assert reply.found[DAY_KEY].granted == 400, "all that is left, and no slack"


async def test_with_plenty_of_room_nobody_is_refused_however_many_ask_at_once(houses: Houses) -> None:
    """What one call asked the others for may be taken by another call before it is its turn: it asks again."""
    benches = await houses(2)
    await limit(benches, tokens_per_day=10**12, tokens_per_minute=10**12)

    async def keep_asking(number: int) -> None:
        bench, tokens = benches[number % 2], 10 if number % 3 else 5000
        for turn in range(4):
            (await bench.limits.hold_waiting(ADA, demand(tokens))).bind(f"job_{number}_{turn}")

    await asyncio.gather(*(keep_asking(number) for number in range(40)))
