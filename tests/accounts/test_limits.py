"""What is particular to limits that are counted in memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.accounts.limits_house import ACME, ADA, HER, NOON, Bench, Told, demand, done, in_memory, people, unused

from terrace import settings
from terrace.accounts.limits import store
from terrace.accounts.limits.base import Subject
from terrace.accounts.limits.memory import MemoryLimits
from terrace.accounts.limits.meters import Rule, Window, period
from terrace.accounts.limits.meters import Total as Spent
from terrace.accounts.limits.seeding import seed
from terrace.accounts.limits.unlimited import Unlimited
from terrace.errors import Conflict, Invalid, Limited, Unavailable
from terrace.storage import Database
from terrace.telemetry.ledger import Recent, Total
from terrace.types import Scope


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    await database.write(people)
    bench = Bench(database, tmp_path, in_memory)
    await bench.open()
    yield bench
    await bench.close()


async def test_what_another_process_sets_is_known_here_within_seconds(
    bench: Bench, elsewhere: Callable[[], Database]
) -> None:
    another = elsewhere()
    other = MemoryLimits(another, bench.ledger, Told(), lambda _: None, bench.options, bench.clock, stored=bench.shelf)
    for value, expected in ((5, [5]), (None, [])):
        await other.change(ACME, {"tokens_per_day": value}, "x")
        for _ in range(1000):
            if [each.value for each in await bench.limits.show(ACME)] == expected:
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("not heard of within five seconds")
        bench.limits.begin(Scope("globex"), demand(6))
    await another.close()


async def test_books_that_take_no_more_stop_calls_and_nothing_is_reserved(bench: Bench) -> None:
    class Full:
        def begin(self, *_: object) -> int:
            raise Unavailable("The disk is full.", code="disk_full")

        async def totals(self, since_day: str) -> list[Any]:
            return []

        recent = totals

    limits = MemoryLimits(
        bench.database, Full(), Told(), lambda _: None, bench.options, bench.clock, stored=bench.shelf  # type: ignore[arg-type]
    )  # fmt: skip
    await limits.start()
    await limits.change(ACME, {"tokens_per_day": 100, "concurrent_requests": 1, "requests_per_minute": 1}, "x")
    with pytest.raises(Unavailable):
        limits.begin(ADA, demand(50, requests=1))
    assert [each.used for each in await limits.show(ACME)] == [0, 0, 0]
    await limits.close()


async def test_a_provider_that_tells_nonsense_is_not_believed_for_long(bench: Bench) -> None:
    await bench.limits.change(HER, {"tokens_per_day": 10**12}, "x")
    bench.limits.begin(ADA, demand(10, 10)).end(done(10**9, 10**9))
    before = (await bench.limits.show(HER))[0].used
    bench.limits.begin(ADA, demand(10, 10))
    assert (await bench.limits.show(HER))[0].used - before == 64 * 20


async def test_a_provider_that_tells_less_than_nothing_gives_no_room_back(bench: Bench) -> None:
    await bench.limits.change(HER, {"tokens_per_day": 100, "money_per_day": 1}, "x")
    bench.limits.begin(ADA, demand(50)).end(done(50))
    bench.limits.begin(ADA, demand(50)).end(done(-50, -50))
    assert [each.used for each in await bench.limits.show(HER)] == [50, 0.00005]
    bench.limits.begin(ADA, demand(50)).end(done(10**30))
    assert (await bench.limits.show(HER))[0].used == 50 + 10**9


class Slow:
    """Books that are long in telling what was spent, or fail at it, while `trouble` is set."""

    def __init__(self, bench: Bench) -> None:
        self._books = bench.ledger
        self.trouble: Callable[[], Awaitable[None]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._books, name)

    async def totals(self, since_day: str) -> list[Total]:
        if self.trouble is not None:
            await self.trouble()
        return await self._books.totals(since_day)


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_limit_whose_use_could_not_be_read_counts_it_later(bench: Bench, how: str) -> None:
    bench.limits.begin(ADA, demand(60)).end(done(60))
    books = Slow(bench)
    limits = MemoryLimits(
        bench.database, books, Told(), lambda _: None, bench.options, bench.clock, stored=bench.shelf  # type: ignore[arg-type]
    )  # fmt: skip
    await limits.start()
    reached = asyncio.Event()

    async def trouble() -> None:
        reached.set()
        if how == "failed":
            raise Unavailable("The database is busy.")
        await asyncio.Event().wait()

    books.trouble = trouble
    changing = asyncio.create_task(limits.change(ACME, {"tokens_per_day": 100}, "x"))
    await reached.wait()
    changing.cancel()
    await asyncio.gather(changing, return_exceptions=True)
    books.trouble = None
    for _ in range(1000):
        if [each.used for each in await limits.show(ACME)] == [60]:
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("what was used stays unknown")
    with pytest.raises(Limited):
        limits.begin(ADA, demand(41))
    await limits.close()


async def test_thousands_who_have_limits_are_seeded_at_once() -> None:
    count = 20_000
    rules = [
        Rule(Subject("acme", "key", f"key_{number}"), "money_per_day", 10**12, "x", NOON) for number in range(count)
    ]
    windows = [Window(replace(rule, name="tokens_per_minute")) for rule in rules]
    totals = [Spent(rule, NOON) for rule in rules]

    class Books:
        async def totals(self, since_day: str) -> list[Total]:
            return [Total("acme", None, f"key_{number}", "2026-11-21", 3, 4) for number in range(count)]

        async def recent(self, seconds: float = 60.0) -> list[Recent]:
            return [Recent("acme", None, f"key_{number}", NOON, 3) for number in range(count)]

    started = time.process_time()
    await seed([*totals, *windows], Books(), lambda: NOON)
    assert time.process_time() - started < 5
    assert {each.used for each in totals} == {4}
    assert {each.used for each in windows} == {3}


async def test_a_call_that_ends_after_its_limit_was_taken_away(bench: Bench) -> None:
    await bench.limits.change(ACME, {"tokens_per_day": 100, "tokens_per_minute": 100}, "x")
    call = bench.limits.begin(ADA, demand(60))
    await bench.limits.change(ACME, {"tokens_per_day": None, "tokens_per_minute": None}, "x")
    call.end(done(60))
    await bench.limits.change(ACME, {"tokens_per_day": 100, "tokens_per_minute": 100}, "x")
    assert [each.used for each in await bench.limits.show(ACME)] == [60, 60]


async def test_a_limit_that_is_raised_lets_in_who_waits(bench: Bench) -> None:
    await bench.limits.change(ACME, {"concurrent_requests": 1}, "x")
    bench.limits.begin(ADA, demand())
    waiting = asyncio.create_task(bench.limits.wait(ADA, demand(), 30))
    await asyncio.sleep(0)
    await bench.limits.change(ACME, {"concurrent_requests": 2}, "x")
    (await asyncio.wait_for(waiting, 20)).end(unused())


async def test_lowering_a_limit_refuses_who_waits_in_vain(bench: Bench) -> None:
    await bench.limits.change(ACME, {"tokens_per_minute": 100}, "x")
    bench.limits.begin(ADA, demand(60))
    waiting = asyncio.create_task(bench.limits.wait(ADA, demand(60), 30))
    await asyncio.sleep(0)
    await bench.limits.change(ACME, {"tokens_per_minute": 50}, "x")
    with pytest.raises(Limited, match="never"):
        await asyncio.wait_for(waiting, 20)


def rule(value: int) -> Rule:
    return Rule(ACME, "tokens_per_minute", value, "x", NOON)


def test_a_window_holds_few_buckets_whatever_comes() -> None:
    window = Window(rule(10**9))
    for step in range(100_000):
        window.take(1, NOON + step * 0.002)
        window.expire(NOON + step * 0.002)
    assert len(window._buckets) <= 481
    assert window.used == sum(int(bucket[1]) for bucket in window._buckets)
    assert 30_000 <= window.used <= 30_000 + 63


def test_a_clock_that_is_set_back_holds_nobody_up_for_long() -> None:
    window = Window(rule(10))
    window.take(10, NOON + 10_000)
    assert window.room_in(1, NOON) == 60


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("at", "month"),
    [
        (utc(2026, 11, 21, 12), (utc(2026, 11, 1), utc(2026, 12, 1))),
        (utc(2026, 12, 31, 23, 59), (utc(2026, 12, 1), utc(2027, 1, 1))),
        (utc(2028, 2, 29), (utc(2028, 2, 1), utc(2028, 3, 1))),
    ],
)
def test_months(at: float, month: tuple[float, float]) -> None:
    assert period("money_per_month", at) == month
    begins, ends = period("money_per_day", at)
    assert ends - begins == 86_400
    assert begins <= at < ends


def test_subjects_are_written_and_read() -> None:
    for text in ("tenant", "user:usr_1", "key:key_1"):
        assert store.named(store.parsed(text, "acme")) == text
    assert store.parsed("user:usr_1", "acme") == Subject("acme", "user", "usr_1")
    for text in ("", "users", "user:", "tenant:acme", "key:" + "x" * 65, "model:gpt"):
        with pytest.raises(Invalid):
            store.parsed(text, "acme")


async def test_erasing_takes_limits_along(bench: Bench) -> None:
    for subject in (ACME, HER):
        await bench.limits.change(subject, {"documents": 1}, "x")
    await bench.database.write(store.erase_user, "usr_ada")
    await bench.limits.refresh()  # type: ignore[attr-defined]
    assert await bench.limits.subjects("acme") == [ACME]
    await bench.database.write(store.erase_tenant, ADA)
    await bench.limits.refresh()  # type: ignore[attr-defined]
    assert await bench.limits.subjects("acme") == []


async def test_where_nobody_has_limits_everything_passes(database: Database) -> None:
    limits = Unlimited()
    limits.count(ADA)
    await limits.count_waiting(ADA, 5)
    limits.hold(ADA, demand(10**9)).bind("job_1")
    limits.release("job_1")
    await database.write(lambda session: limits.admit(session, ADA, documents=10**9, bytes=10**15))
    assert await limits.show(ACME) == await limits.subjects("acme") == []
    with pytest.raises(Conflict):
        await limits.change(ACME, {"documents": 1}, "x")


async def test_patience_is_bounded_by_the_settings_but_not_for_jobs(bench: Bench) -> None:
    bench.options = settings.Limits(wait=0.02)
    await bench.restart()
    await bench.limits.change(ACME, {"concurrent_requests": 1}, "x")
    first = bench.limits.begin(ADA, demand())
    job = asyncio.create_task(bench.limits.wait(Scope("acme", job="job_1"), demand(), 600))
    with pytest.raises(Limited):
        await asyncio.wait_for(bench.limits.wait(ADA, demand(), 600), 20)
    assert not job.done()
    first.end(unused())
    (await asyncio.wait_for(job, 20)).end(unused())


async def test_those_who_keep_coming_do_not_put_off_those_who_wait(bench: Bench) -> None:
    await bench.limits.change(ACME, {"requests_per_minute": 1}, "x")
    bench.limits.count(ADA)
    first = asyncio.create_task(bench.limits.count_waiting(ADA, 60))
    await asyncio.sleep(0)
    bench.clock.advance(60)
    more = []
    async with asyncio.timeout(20):
        while not first.done():
            more.append(asyncio.create_task(bench.limits.count_waiting(ADA, 60)))
            await asyncio.sleep(0.02)
    for each in more:
        each.cancel()
    await asyncio.gather(*more, return_exceptions=True)
