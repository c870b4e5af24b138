"""What limits must hold to, wherever they are counted."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text
from tests.accounts.limits_house import (
    ACME,
    ADA,
    HER,
    HER_KEY,
    NOON,
    Bench,
    demand,
    done,
    in_memory,
    people,
    shared,
    unused,
)
from tests.postgres import Postgres
from tests.redis_server import RedisServer, redis_server

from terrace.accounts.limits.base import LimitName, Subject
from terrace.accounts.tables import TenantRow
from terrace.errors import Denied, Invalid, Limited, Missing
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.telemetry.calls import Demand, OpenCall
from terrace.types import Scope, now

CAT, BOB = Scope("acme", "usr_cat", "key_cat"), Scope("globex", "usr_bob", "key_bob")
DAY = 86_400.0
TABLES = (
    "limits", "limit_pools", "limit_shares", "limit_holds", "limit_members", "limit_meeting", "usage_pages",
    "usage_days", "api_keys", "memberships", "users", "tenants",
)  # fmt: skip


@pytest.fixture(scope="module")
def emptied(postgres: Postgres) -> Iterator[str]:
    """One database for all of these tests: making one takes longer than most of them."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def on_postgresql(url: str) -> PostgreSQLDatabase:
    database = PostgreSQLDatabase(url, connections=3)
    await database.write(lambda session: [session.execute(text(f"DELETE FROM {table}")) for table in TABLES] and None)
    return database


@pytest.fixture(params=["memory", "file", "two on a file", "database", "redis"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """One process with its limits: counting alone, alone as yet, with another one on the same file, on PostgreSQL,
    and there through Redis."""
    kind: str = request.param
    if kind in ("database", "redis"):
        database: Database = await on_postgresql(request.getfixturevalue("emptied"))
    else:
        shutil.copy(request.getfixturevalue("migrated"), tmp_path / "terrace.db")
        database = SQLiteDatabase(tmp_path / "terrace.db", durability="normal")
    await database.write(people)
    url = request.getfixturevalue("redis").url if kind == "redis" else ""
    bench = Bench(database, tmp_path, in_memory if kind == "memory" else shared(url))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        if kind == "two on a file":
            other = Bench(SQLiteDatabase(tmp_path / "terrace.db", durability="normal"), tmp_path, shared())
            stack.push_async_callback(other.database.close)
            await other.open()
            stack.push_async_callback(other.close)
        await bench.open()
        stack.push_async_callback(bench.close)
        assert bench.limits.shared == (kind not in ("memory", "file"))
        yield bench


async def limit(bench: Bench, subject: Subject = ACME, **values: Any) -> None:
    await bench.limits.change(subject, values, "usr_owner")  # type: ignore[arg-type]


async def used(bench: Bench, name: LimitName, subject: Subject = ACME) -> float:
    return next(each.used for each in await bench.limits.show(subject) if each.name == name)


async def begin(bench: Bench, scope: Scope, asked: Demand) -> OpenCall:
    return await bench.limits.wait(scope, asked, 0.0)


async def refused(bench: Bench, scope: Scope = ADA, **asked: Any) -> Limited:
    with pytest.raises(Limited) as caught:
        await begin(bench, scope, demand(**asked))
    return caught.value


# A minute


async def test_requests_a_minute(bench: Bench) -> None:
    await limit(bench, requests_per_minute=3)
    for _ in range(3):
        await bench.limits.count_waiting(ADA, 0.0)
        bench.clock.advance(10)
    with pytest.raises(Limited) as caught:
        await bench.limits.count_waiting(ADA, 0.0)
    error = caught.value
    assert error.code == "limit_reached"
    assert error.retry_after == 30
    assert error.extra == {
        "limit": "requests_per_minute", "subject": "tenant", "set_by": "usr_owner", "value": 3, "used": 3,
    }  # fmt: skip
    assert "3 requests a minute" in error.message
    assert "usr_owner" in error.message
    bench.clock.advance(30)
    await bench.limits.count_waiting(ADA, 0.0)


async def test_a_request_at_a_door_and_one_that_a_call_counts_are_the_same(bench: Bench) -> None:
    await limit(bench, requests_per_minute=2)
    await bench.limits.count_waiting(ADA, 0.0)
    await begin(bench, ADA, demand(requests=1))
    assert (await refused(bench, requests=1)).extra["limit"] == "requests_per_minute"
    await begin(bench, ADA, demand(requests=0))


async def test_tokens_count_from_when_their_call_began(bench: Bench) -> None:
    await limit(bench, tokens_per_minute=1000)
    call = await begin(bench, ADA, demand(600, 200))
    bench.clock.advance(20)
    call.end(done(500, 100))
    assert await used(bench, "tokens_per_minute") == 600
    assert (await refused(bench, tokens=300, answer=101)).retry_after == 40
    await begin(bench, ADA, demand(300, 100))
    bench.clock.advance(40)
    assert await used(bench, "tokens_per_minute") == 400


async def test_the_wait_is_until_enough_has_left_and_no_longer(bench: Bench) -> None:
    await limit(bench, tokens_per_minute=100)
    for _ in range(4):
        await begin(bench, ADA, demand(25))
        bench.clock.advance(5)
    assert (await refused(bench, tokens=20)).retry_after == 40
    assert (await refused(bench, tokens=60)).retry_after == 50
    bench.clock.advance(49.9)
    await refused(bench, tokens=60)
    bench.clock.advance(0.2)
    await begin(bench, ADA, demand(60))


@hypothesis_settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 60), st.floats(0, 2)), max_size=30),
)
async def test_no_minute_whatever_holds_more_than_the_limit(
    bench: Bench, steps: list[tuple[float, int, float]]
) -> None:
    bench.clock.advance(10_000)
    await limit(bench, tokens_per_minute=100)
    passed: list[tuple[float, int]] = []
    waits: list[float] = []
    for pause, amount, share in steps:
        bench.clock.advance(pause)
        try:
            call = await begin(bench, ADA, demand(amount))
        except Limited as error:
            waits.append(error.retry_after or 0)
            continue
        real = int(amount * min(share, 1))
        call.end(done(real))
        passed.append((bench.clock(), real))
    for at, _ in passed:
        assert sum(tokens for when, tokens in passed if at - 60 < when <= at) <= 100
    assert all(0 < wait <= 60 for wait in waits)


# A day, a month


async def test_a_day_ends_at_midnight_utc(bench: Bench) -> None:
    await limit(bench, tokens_per_day=1000)
    (await begin(bench, ADA, demand(900))).end(done(900))
    error = await refused(bench, tokens=200)
    assert error.retry_after == DAY / 2
    assert "midnight UTC" in error.message
    bench.clock.advance(DAY / 2)
    (await begin(bench, ADA, demand(200))).end(done(200))
    assert await used(bench, "tokens_per_day") == 200


async def test_what_began_yesterday_is_settled_yesterday(bench: Bench) -> None:
    await limit(bench, tokens_per_day=1000, money_per_day=1)
    call = await begin(bench, ADA, demand(1000))
    bench.clock.advance(DAY / 2 + 1)
    assert await used(bench, "tokens_per_day") == 0
    call.end(done(300))
    assert await used(bench, "tokens_per_day") == 0
    assert await used(bench, "money_per_day") == 0


async def test_money(bench: Bench) -> None:
    await limit(bench, money_per_day=0.001, money_per_month=0.0015)  # a thousand tokens, and fifteen hundred
    (await begin(bench, ADA, demand(800, 200))).end(done(800, 100))
    assert await used(bench, "money_per_day") == 0.0009
    error = await refused(bench, tokens=101)
    assert (error.extra["limit"], error.extra["value"], error.extra["used"]) == ("money_per_day", 0.001, 0.0009)
    assert "$0.0009" in error.message
    bench.clock.advance(DAY)
    (await begin(bench, ADA, demand(600))).end(done(600))
    error = await refused(bench, tokens=1)
    assert error.extra["limit"] == "money_per_month"
    assert error.retry_after == 8.5 * DAY


async def test_a_model_without_a_known_price_may_not_spend(bench: Bench) -> None:
    await begin(bench, ADA, demand(model="new"))
    await limit(bench, money_per_day=1)
    with pytest.raises(Denied) as caught:
        await begin(bench, ADA, demand(model="new"))
    assert caught.value.code == "price_unknown"
    assert "box/new" in caught.value.message
    await begin(bench, ADA, demand(model="local"))


# At a time


async def test_calls_at_a_time(bench: Bench) -> None:
    await limit(bench, concurrent_requests=2)
    first, _ = await begin(bench, ADA, demand()), await begin(bench, ADA, demand())
    error = await refused(bench)
    assert error.extra["limit"] == "concurrent_requests"
    assert error.retry_after
    first.end(unused())
    await begin(bench, ADA, demand())


# Whose


async def test_a_call_counts_for_its_key_its_user_and_its_tenant_and_for_nobody_else(bench: Bench) -> None:
    for subject in (ACME, HER, HER_KEY):
        await limit(bench, subject, tokens_per_day=1000)
    (await begin(bench, ADA, demand(100))).end(done(100))
    (await begin(bench, Scope("acme", "usr_ada"), demand(10))).end(done(10))
    (await begin(bench, CAT, demand(1))).end(done(1))
    (await begin(bench, BOB, demand(500))).end(done(500))
    assert [await used(bench, "tokens_per_day", each) for each in (ACME, HER, HER_KEY)] == [111, 110, 100]
    assert await bench.limits.subjects("acme") == [ACME, HER_KEY, HER]
    assert await bench.limits.subjects("globex") == []


async def test_all_limits_or_none_are_taken(bench: Bench) -> None:
    await limit(bench, requests_per_minute=5, tokens_per_minute=10_000, tokens_per_day=10_000, money_per_day=1)
    await limit(bench, HER_KEY, tokens_per_day=50)
    error = await refused(bench, tokens=51, requests=1)
    assert (error.extra["subject"], error.extra["limit"]) == ("key", "tokens_per_day")
    assert [each.used for each in await bench.limits.show(ACME)] == [0, 0, 0, 0]


# Reserved and settled


async def test_the_most_is_reserved_and_what_was_used_is_kept(bench: Bench) -> None:
    await limit(bench, tokens_per_day=1000)
    call = await begin(bench, ADA, demand(100, 400))
    assert call.output_tokens == 400
    assert await used(bench, "tokens_per_day") == 500
    call.end(done(90, 10))
    call.end(done(90, 10))
    assert await used(bench, "tokens_per_day") == 100
    (await begin(bench, ADA, demand(100, 400))).end(unused())
    assert await used(bench, "tokens_per_day") == 100
    assert [each.outcome for each in bench.recorded] == ["ok", "error"]


async def test_what_goes_beyond_its_bound_counts_and_is_remembered(bench: Bench) -> None:
    await limit(bench, tokens_per_day=10_000)
    (await begin(bench, ADA, demand(100, 50))).end(done(200, 100))
    assert await used(bench, "tokens_per_day") == 300
    await begin(bench, ADA, demand(100, 50))
    assert await used(bench, "tokens_per_day") == 600, "twice what was asked is reserved now"
    await begin(bench, ADA, demand(100, 50, model="local"))
    assert await used(bench, "tokens_per_day") == 750


async def test_who_names_no_bound_gets_one_where_tokens_or_money_count(bench: Bench) -> None:
    assert (await begin(bench, ADA, demand(100, None))).output_tokens is None
    await limit(bench, concurrent_requests=100)
    under_way = await begin(bench, ADA, demand(100, None))
    assert (under_way.output_tokens, under_way.answer_tokens) == (None, 4096)
    await limit(bench, tokens_per_day=20_000)
    before = await used(bench, "tokens_per_day")
    assert before == 2 * 4196, "what is under way counts with the longest answer to reckon with"
    call = await begin(bench, ADA, demand(100, None))
    assert call.output_tokens == call.answer_tokens == bench.options.answer_tokens == 4096
    assert await used(bench, "tokens_per_day") == before + 4196


async def test_with_little_left_the_answer_is_bounded_to_it(bench: Bench) -> None:
    await limit(bench, tokens_per_day=1000, money_per_day=0.0005)
    call = await begin(bench, ADA, demand(100, None))
    assert call.output_tokens == 400, "what the money leaves"
    call.end(done(100, 10))
    assert (await begin(bench, ADA, demand(374, None))).output_tokens == 16
    await refused(bench, tokens=1, answer=None)


async def test_what_can_never_fit_is_told_so(bench: Bench) -> None:
    await limit(bench, HER_KEY, tokens_per_minute=1000)
    error = await refused(bench, tokens=800, answer=400)
    assert error.retry_after is None
    assert "can never fit" in error.message
    assert "max_tokens" in error.message
    assert (await refused(bench, tokens=990, answer=None)).retry_after is None
    await begin(bench, ADA, demand(984, None))


async def test_the_longest_wait_is_the_one_that_is_told(bench: Bench) -> None:
    await limit(bench, tokens_per_minute=100, tokens_per_day=150, concurrent_requests=1)
    (await begin(bench, ADA, demand(90))).end(done(90))
    await begin(bench, ADA, demand(10))
    assert (await refused(bench, tokens=70)).extra["limit"] == "tokens_per_day"
    assert (await refused(bench, tokens=50)).extra["limit"] == "tokens_per_minute"


# Waiting


async def test_whoever_may_wait_is_served_when_a_call_ends(bench: Bench) -> None:
    await limit(bench, concurrent_requests=1)
    first = await begin(bench, ADA, demand())
    waiting = asyncio.create_task(bench.limits.wait(ADA, demand(), 30))
    await asyncio.sleep(0)
    first.end(unused())
    (await asyncio.wait_for(waiting, 20)).end(unused())


async def test_and_when_time_has_passed(bench: Bench) -> None:
    await limit(bench, tokens_per_minute=100, requests_per_minute=1)
    (await begin(bench, ADA, demand(100, requests=1))).end(done(100))
    waiting = [
        asyncio.create_task(bench.limits.wait(ADA, demand(50), 60)),
        asyncio.create_task(bench.limits.count_waiting(ADA, 60)),
    ]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    bench.clock.advance(60)
    await asyncio.wait_for(asyncio.gather(*waiting), 20)


async def test_patience_ends(bench: Bench) -> None:
    await limit(bench, concurrent_requests=1)
    await begin(bench, ADA, demand())
    with pytest.raises(Limited) as caught:
        await bench.limits.wait(ADA, demand(), 0.02)
    assert caught.value.extra["limit"] == "concurrent_requests"


async def test_nobody_waits_for_what_waiting_cannot_bring(bench: Bench) -> None:
    await limit(bench, tokens_per_day=100, requests_per_minute=1)
    with pytest.raises(Limited, match="never"):
        await asyncio.wait_for(bench.limits.wait(ADA, demand(101), 60), 20)
    (await begin(bench, ADA, demand(100))).end(done(100))
    with pytest.raises(Limited, match="midnight"):
        await asyncio.wait_for(bench.limits.wait(Scope("acme", job="job_1"), demand(1), 600), 20)
    await bench.limits.count_waiting(ADA, 0.0)
    with pytest.raises(Limited):
        await asyncio.wait_for(bench.limits.count_waiting(ADA, 30), 20)


async def test_reservations_in_the_way_are_worth_waiting_for(bench: Bench) -> None:
    await limit(bench, tokens_per_day=100)
    first = await begin(bench, ADA, demand(100))
    waiting = asyncio.create_task(bench.limits.wait(ADA, demand(60), 30))
    await asyncio.sleep(0)
    first.end(done(40))
    await asyncio.wait_for(waiting, 20)


async def test_in_the_order_they_came(bench: Bench) -> None:
    await limit(bench, concurrent_requests=1)
    call = await begin(bench, ADA, demand())
    served: list[int] = []

    async def wait(number: int) -> None:
        (await bench.limits.wait(ADA if number % 2 else CAT, demand(), 30)).end(unused())
        served.append(number)

    tasks = []
    for number in range(6):
        tasks.append(asyncio.create_task(wait(number)))
        await asyncio.sleep(0)
    call.end(unused())
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert served == list(range(6))


async def test_a_large_call_that_waits_is_not_passed_by_small_ones(bench: Bench) -> None:
    await limit(bench, tokens_per_minute=100)
    first = await begin(bench, ADA, demand(60))
    large = asyncio.create_task(bench.limits.wait(ADA, demand(90), 30))
    told = ""
    async with asyncio.timeout(20):
        while "Others wait" not in told:  # until it has asked everywhere and stands in line
            try:
                (await begin(bench, CAT, demand(5))).end(unused())
            except Limited as error:
                told = error.message
            await asyncio.sleep(0.02)
    small = asyncio.create_task(bench.limits.wait(CAT, demand(10), 30))
    await asyncio.sleep(0.02)
    assert not small.done()
    first.end(unused())
    (await asyncio.wait_for(large, 20)).end(done(90))
    await asyncio.wait_for(small, 20)


async def test_who_waits_for_their_own_limit_holds_up_nobody_else(bench: Bench) -> None:
    await limit(bench, HER, concurrent_requests=1)
    await limit(bench, concurrent_requests=10)
    await begin(bench, ADA, demand())
    waiting = asyncio.create_task(bench.limits.wait(ADA, demand(), 30))
    await asyncio.sleep(0.1)
    await begin(bench, CAT, demand())
    await asyncio.wait_for(bench.limits.wait(CAT, demand(), 30), 20)
    waiting.cancel()


async def test_a_cancelled_wait_takes_nothing(bench: Bench) -> None:
    await limit(bench, concurrent_requests=1)
    first = await begin(bench, ADA, demand())
    waiting = [asyncio.create_task(bench.limits.wait(ADA, demand(), 30)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    first.end(unused())
    waiting[0].cancel()  # it may have been served in this very moment
    await asyncio.sleep(0.02)
    assert [each.cancelled() for each in waiting[:2]] == [True, True]
    (await asyncio.wait_for(waiting[2], 20)).end(unused())
    assert await used(bench, "concurrent_requests") == 0


async def test_only_so_many_wait_and_a_tenant_with_fewer_gets_a_place(bench: Bench) -> None:
    bench.options = bench.options.model_copy(update={"waiting": 4})
    await bench.restart()
    for subject in (ACME, Subject("globex")):
        await limit(bench, subject, concurrent_requests=1)
    calls = [await begin(bench, each, demand()) for each in (ADA, BOB)]
    flood = [asyncio.create_task(bench.limits.wait(ADA, demand(), 30)) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Limited):
        await asyncio.wait_for(bench.limits.wait(CAT, demand(), 30), 20)
    other = asyncio.create_task(bench.limits.wait(BOB, demand(), 30))
    await asyncio.sleep(0.02)
    with pytest.raises(Limited):
        await asyncio.wait_for(flood[3], 20)
    for call in calls:
        call.end(unused())
    (await asyncio.wait_for(other, 20)).end(unused())
    for each in flood[:3]:
        (await asyncio.wait_for(each, 20)).end(unused())


async def test_closing_sends_the_waiting_away(bench: Bench) -> None:
    await limit(bench, concurrent_requests=1)
    await begin(bench, ADA, demand())
    waiting = asyncio.create_task(bench.limits.wait(ADA, demand(), 30))
    await asyncio.sleep(0)
    await bench.limits.close()
    with pytest.raises(Exception, match="shutting down"):
        await asyncio.wait_for(waiting, 20)
    with pytest.raises(Exception, match="shutting down"):  # who comes later is not left waiting either
        await asyncio.wait_for(bench.limits.wait(ADA, demand(), 30), 20)


# Holds


async def test_a_hold_keeps_room_and_its_jobs_call_takes_it_over(bench: Bench) -> None:
    await limit(bench, tokens_per_day=1000)
    (await bench.limits.hold_waiting(ADA, demand(600, 100))).bind("job_1")
    assert await used(bench, "tokens_per_day") == 700
    await refused(bench, tokens=301)
    with pytest.raises(Limited):
        await bench.limits.hold_waiting(CAT, demand(301))
    call = await begin(bench, Scope("acme", "usr_ada", "key_ada", "job_1"), demand(800, 200))
    assert await used(bench, "tokens_per_day") == 1000
    call.end(done(500))
    assert await used(bench, "tokens_per_day") == 500
    bench.limits.release("job_1")
    assert await used(bench, "tokens_per_day") == 500


async def test_a_hold_outlives_a_call_of_its_job_that_found_no_room(bench: Bench) -> None:
    await limit(bench, tokens_per_day=1000, concurrent_requests=1)
    other = await begin(bench, CAT, demand(100))
    (await bench.limits.hold_waiting(ADA, demand(700))).bind("job_1")
    job = Scope("acme", "usr_ada", None, "job_1")
    assert (await refused(bench, job, tokens=700)).extra["limit"] == "concurrent_requests"
    assert await used(bench, "tokens_per_day") == 800
    other.end(done(100))
    await begin(bench, job, demand(900))


@pytest.mark.parametrize("how", ["release", "job"])
async def test_a_hold_is_given_back(bench: Bench, how: str) -> None:
    await limit(bench, tokens_per_day=1000)
    hold = await bench.limits.hold_waiting(ADA, demand(900))
    hold.bind("job_1")
    if how == "release":
        hold.release()
        hold.release()
    else:
        bench.limits.release("job_1")
        bench.limits.release("job_unknown")
    await begin(bench, ADA, demand(1000))


# Keeping them


async def test_limits_are_shown_changed_and_removed(bench: Bench) -> None:
    bench.clock.advance(60)
    shown = await bench.limits.change(ACME, {"tokens_per_day": 1000, "money_per_month": 2.5}, "usr_owner")
    assert [(each.name, each.value, each.used, each.set_by) for each in shown] == [
        ("tokens_per_day", 1000, 0, "usr_owner"), ("money_per_month", 2.5, 0, "usr_owner"),
    ]  # fmt: skip
    assert shown[0].resets_in == DAY / 2 - 60
    (await begin(bench, ADA, demand(900))).end(done(900))
    (tokens, _) = await bench.limits.change(ACME, {"tokens_per_day": 500}, "terminal")
    assert (tokens.value, tokens.used, tokens.set_by) == (500, 900, "terminal")
    await refused(bench, tokens=1)
    assert [each.name for each in await bench.limits.change(ACME, {"tokens_per_day": None}, "x")] == ["money_per_month"]
    await begin(bench, ADA, demand(100_000))


NONSENSE: list[tuple[Any, Any]] = [
    ("requests_per_minute", 0), ("requests_per_minute", -1), ("tokens_per_day", 1.5), ("documents", True),
    ("money_per_day", 0), ("money_per_day", float("nan")), ("money_per_day", float("inf")), ("money_per_day", 1e9),
    ("tokens_per_day", 10**30), ("tokens", 5), ("tokens_per_day", "7"),
]  # fmt: skip


async def test_nonsense_is_refused(bench: Bench) -> None:
    for name, value in NONSENSE:
        with pytest.raises(Invalid, match=name):
            await bench.limits.change(ACME, {name: value}, "usr_owner")
        assert await bench.limits.show(ACME) == [], value


@pytest.mark.parametrize("subject", [Subject("acme", "user", "usr_bob"), Subject("acme", "key", "key_bob")], ids=str)
async def test_another_tenants_people_are_not_there(bench: Bench, subject: Subject) -> None:
    with pytest.raises(Missing):
        await bench.limits.change(subject, {"documents": 1}, "usr_owner")


async def test_a_limit_that_is_set_in_the_middle_of_things_knows_what_is_used(bench: Bench) -> None:
    bench.clock.at = now()  # as the database has it, which is asked what was booked in the last minute
    (await begin(bench, ADA, demand(300))).end(done(300))
    await bench.ledger.flush()
    under_way = await begin(bench, ADA, demand(200, 100))
    (await bench.limits.hold_waiting(ADA, demand(50))).bind("job_1")
    await limit(bench, tokens_per_day=10_000, tokens_per_minute=10_000, money_per_day=1, concurrent_requests=5)
    assert await used(bench, "concurrent_requests") == 1
    under_way.end(done(150, 50))
    bench.limits.release("job_1")
    for name in ("tokens_per_day", "tokens_per_minute"):
        assert await used(bench, name) == 500  # type: ignore[arg-type]
    assert await used(bench, "money_per_day") == 0.0005
    assert await used(bench, "concurrent_requests") == 0


async def test_a_restart_forgets_nothing(bench: Bench) -> None:
    await limit(bench, requests_per_minute=10, tokens_per_minute=10_000, tokens_per_day=10_000, money_per_month=1)
    await limit(bench, HER_KEY, tokens_per_day=5000)
    (await begin(bench, ADA, demand(1000, requests=1))).end(done(1000))
    (await begin(bench, CAT, demand(500, requests=1))).end(done(500))
    bench.clock.advance(30)
    await bench.restart()
    assert [each.used for each in await bench.limits.show(ACME)] == [2, 1500, 1500, 0.0015]
    assert await used(bench, "tokens_per_day", HER_KEY) == 1000


# Who is not let in any more


async def disable(bench: Bench, at: float | None) -> None:
    def write(session: Any) -> None:
        row = session.get(TenantRow, "acme")
        row.disabled_at = at
        session.add(row)

    await bench.database.write(write)


async def test_what_a_disabled_tenant_has_queued_asks_no_model(bench: Bench) -> None:
    await disable(bench, NOON)
    await bench.restart()
    for scope in (ADA, replace(ADA, job="job_1"), Scope("acme")):
        with pytest.raises(Denied) as caught:
            await begin(bench, scope, demand())
        assert caught.value.code == "tenant_disabled"
        with pytest.raises(Denied):
            await bench.limits.wait(scope, demand(), 5.0)
    (await begin(bench, BOB, demand())).end(unused())


async def test_a_tenant_is_shut_out_and_let_in_while_work_goes_on(bench: Bench) -> None:
    limits: Any = bench.limits
    for at in (NOON, None):
        await disable(bench, at)
        limits.admitted()
        async with asyncio.timeout(20):
            while True:
                try:
                    (await begin(bench, ADA, demand())).end(unused())
                    shut = False
                except Denied:
                    shut = True
                if shut == (at is not None):
                    break
                await asyncio.sleep(0.02)


# What is stored


async def test_stored_bytes_and_documents(bench: Bench) -> None:
    await limit(bench, documents=3)
    await limit(bench, HER, stored_bytes=100)
    bench.shelf.kept = {ACME: (1, 500), HER: (1, 60)}

    def store(session: Any) -> None:
        bench.limits.admit(session, ADA, documents=1, bytes=30)
        with pytest.raises(Limited) as caught:
            bench.limits.admit(session, ADA, documents=1, bytes=11)
        assert (caught.value.extra["subject"], caught.value.extra["limit"]) == ("user", "stored_bytes")
        assert (caught.value.extra["used"], caught.value.extra["value"]) == (90, 100)
        assert "90 are there" in caught.value.message
        bench.limits.admit(session, ADA, documents=1, bytes=10)
        with pytest.raises(Limited) as caught:
            bench.limits.admit(session, CAT, documents=3, bytes=1)
        assert caught.value.extra["limit"] == "documents"
        bench.limits.admit(session, BOB, documents=1000, bytes=10**12)

    await bench.database.write(store)
    assert await used(bench, "documents") == 1
