"""The books: each call once, whatever is repeated, refused or dies."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select
from tests.telemetry.calls import ADA, PRICE, RESERVED, Shaky, begin, booked, call, demand, died, make, sums

from terrace.errors import Unavailable
from terrace.storage import Database, SQLiteDatabase
from terrace.telemetry.calls import Usage
from terrace.telemetry.journal import STEP, Journal
from terrace.telemetry.ledger import Ledger, Recovered, Spent
from terrace.telemetry.records import Entry
from terrace.telemetry.store import day_of
from terrace.telemetry.tables import UsageDayRow
from terrace.types import Scope, now

BOB = Scope("globex", "usr_bob")


@pytest.fixture
async def ledger(database: Database, tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(database, tmp_path / "usage")
    await ledger.start()
    yield ledger
    await ledger.close()


async def rows(database: Database) -> list[Entry]:
    return await database.read(booked)


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_call_is_booked_a_moment_after_it_ended(database: Database, ledger: Ledger) -> None:
    scope = Scope("acme", "usr_ada", "key_ada", "job_1")
    slot = begin(ledger, scope)
    await asyncio.sleep(0)
    assert await rows(database) == []
    ledger.end(slot, call(Usage(12, 7, 4)), 42, "2026-11-21")
    await until(lambda: rows(database))
    (row,) = await rows(database)
    assert {name: value for name, value in row._asdict().items() if name not in ("id", "started_at")} == {
        "tenant_id": "acme", "user_id": "usr_ada", "key_id": "key_ada", "job_id": "job_1", "provider": "openai",
        "model": "gpt-4o", "operation": "chat", "outcome": "ok", "code": "", "input_tokens": 12, "cached_tokens": 4,
        "output_tokens": 7, "estimated": False, "cost": 42, "price_dated": "2026-11-21", "duration": 1.5,
        "first_token": 0.25,
    }  # fmt: skip
    assert row.id.startswith("use_")
    (day,) = await database.read(lambda session: session.exec(select(UsageDayRow)).all())
    assert day.model_dump() == {
        "tenant_id": "acme", "day": day_of(row.started_at), "user_id": "usr_ada", "key_id": "key_ada",
        "model": "openai/gpt-4o", "calls": 1, "failed": 0, "unpriced": 0, "input_tokens": 12, "cached_tokens": 4,
        "output_tokens": 7, "cost": 42,
    }  # fmt: skip


async def test_many_at_once_are_booked_at_once(database: Database, ledger: Ledger) -> None:
    spent = sum(make(ledger, scope) for scope in (ADA, BOB, Scope()) for _ in range(1000))
    await ledger.flush()
    calls, days = await database.read(sums)
    assert calls == days == (3000, 0, 0, 30_000, 0, 15_000, spent)


async def test_a_long_call_stays_open_beside_short_ones(database: Database, ledger: Ledger) -> None:
    long = begin(ledger, BOB)
    for _ in range(2 * STEP):
        make(ledger)
    await ledger.flush()
    assert {row.tenant_id for row in await rows(database)} == {"acme"}
    ledger.end(long, call(Usage(1, 1), "cancelled"), 3, None)
    await ledger.flush()
    assert [row.cost for row in await rows(database) if row.tenant_id == "globex"] == [3]


async def test_the_end_books_what_has_ended(database: Database, tmp_path: Path) -> None:
    ledger = Ledger(database, tmp_path / "usage")
    await ledger.start()
    make(ledger)
    await ledger.close()
    assert len(await rows(database)) == 1
    assert list((tmp_path / "usage").iterdir()) == []
    with pytest.raises(Unavailable):
        begin(ledger)


async def test_a_call_under_way_at_the_end_is_still_noted(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(database, tmp_path / "usage")
    await ledger.start()
    slots = [begin(ledger), begin(ledger)]
    await ledger.close()
    assert "2 model calls are still under way" in caplog.text
    with pytest.raises(Unavailable):
        begin(ledger)
    ledger.end(slots[0], call(Usage(1, 1)), 5, None)
    (left,) = (tmp_path / "usage").iterdir()
    (tmp_path / "dead").mkdir()
    shutil.copy(left, tmp_path / "dead")
    recovered = await Ledger(database, tmp_path / "dead").take_over()
    assert recovered == Recovered(ended=1, lost=1)
    assert sorted((row.outcome, row.cost) for row in await rows(database)) == [("lost", RESERVED[2]), ("ok", 5)]


async def test_a_flush_that_nobody_heard_of_counts_once(database: Database, tmp_path: Path) -> None:
    shaky = Shaky(database)
    ledger = Ledger(shaky, tmp_path / "usage")
    await ledger.start()
    spent = sum(make(ledger) for _ in range(700))
    for when in ("after", "before", "after"):
        shaky.fails = lambda when=when: when
        with pytest.raises(Unavailable):
            await ledger.flush()
        assert await ledger.spent("acme", since_day="2026-01-01") == Spent(700 * 15, spent)
    shaky.fails = lambda: ""
    await ledger.flush()
    calls, days = await database.read(sums)
    assert calls == days
    assert (calls[0], calls[6]) == (700, spent)
    await ledger.close()


async def test_what_is_booked_already_goes_with_what_is_not(database: Database, tmp_path: Path) -> None:
    shaky = Shaky(database)
    ledger = Ledger(shaky, tmp_path / "usage")
    await ledger.start()
    spent = make(ledger)
    shaky.fails = lambda: "after"
    assert not await ledger.catch_up()
    shaky.fails = lambda: ""
    spent += make(ledger)
    await ledger.flush()
    calls, days = await database.read(sums)
    assert calls == days
    assert (calls[0], calls[6]) == (2, spent)
    await ledger.close()


async def test_a_database_that_is_away_is_told_once_and_tried_again(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shaky = Shaky(database)
    ledger = Ledger(shaky, tmp_path / "usage")
    await ledger.start()
    shaky.fails = lambda: "before"
    make(ledger)
    assert not await ledger.catch_up()
    assert not await ledger.catch_up()
    assert caplog.text.count("1 model calls wait to be booked") == 1
    shaky.fails = lambda: ""

    async def told() -> bool:
        return "are booked" in caplog.text

    await until(told)  # nobody asks for it
    assert len(await rows(database)) == 1
    await ledger.close()


async def test_what_the_database_never_takes_is_booked_by_the_next_start(database: Database, tmp_path: Path) -> None:
    shaky = Shaky(database)
    ledger = Ledger(shaky, tmp_path / "usage", closing=0.1)
    await ledger.start()
    spent = make(ledger) + make(ledger)
    shaky.fails = lambda: "before"
    await ledger.close()
    assert await rows(database) == []
    again = Ledger(database, tmp_path / "usage")
    assert await again.start() == Recovered(ended=2)
    await again.close()
    calls, days = await database.read(sums)
    assert calls == days
    assert (calls[0], calls[6]) == (2, spent)


async def test_a_full_journal_refuses_calls_until_there_is_room(database: Database, tmp_path: Path) -> None:
    ledger = Ledger(database, tmp_path / "usage", most=STEP)
    await ledger.start()
    for _ in range(STEP - 1):
        make(ledger)
    with pytest.raises(Unavailable) as refused:
        begin(ledger)
    assert refused.value.code == "ledger_full"
    await ledger.flush()
    make(ledger)
    await ledger.close()


# -- what dead processes leave


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """The folder of a process that died with 600 ended calls of 35 picodollars and 2 open ones."""
    journal = Journal(tmp_path / "living")
    for _ in range(600):
        slot = journal.begin(ADA, demand(), now(), *RESERVED, "2026-11-21")
        journal.end(slot, call(Usage(3, 4)), 35, "2026-11-21")
    for _ in range(2):
        journal.begin(BOB, demand(), now(), *RESERVED, "2026-11-21")
    died(journal, tmp_path / "usage")
    journal.close()
    return tmp_path / "usage"


async def test_a_dead_process_is_taken_over(database: Database, dead: Path) -> None:
    ledger = Ledger(database, dead)
    assert await ledger.start() == Recovered(ended=600, lost=2)
    calls, days = await database.read(sums)
    assert calls == days == (602, 2, 0, 1800 + 200, 0, 2400 + 100, 600 * 35 + 2 * RESERVED[2])
    assert await ledger.spent("globex", since_day="2026-01-01") == Spent(300, 2 * RESERVED[2])
    await ledger.close()
    assert not any(dead.iterdir())  # noqa: ASYNC240


@pytest.mark.both
async def test_two_that_start_at_once_book_each_call_once(database: Database, dead: Path) -> None:
    ledgers = [Ledger(database, dead) for _ in range(4)]
    recovered = await asyncio.gather(*(ledger.start() for ledger in ledgers))
    assert sum(each.ended for each in recovered) == 600
    assert sum(each.lost for each in recovered) == 2
    calls, days = await database.read(sums)
    assert calls == days
    assert calls[0] == 602
    for ledger in ledgers:
        await ledger.close()


async def test_a_takeover_that_dies_too_is_gone_through_again(database: Database, dead: Path) -> None:
    shaky = Shaky(database)
    for story in (["before"], ["after"], ["after"], ["before"]):
        shaky.fails = iter(story).__next__
        with pytest.raises(Unavailable):
            await Ledger(shaky, dead).start()
    await Ledger(database, dead).take_over()
    assert await Ledger(database, dead).take_over() == Recovered()
    calls, days = await database.read(sums)
    assert calls == days
    assert (calls[0], calls[6]) == (602, 600 * 35 + 2 * RESERVED[2])


# -- what was spent


async def test_totals_know_what_is_not_booked_yet(database: Database, ledger: Ledger) -> None:
    first = make(ledger)
    await ledger.flush()
    second = make(ledger, usage=Usage(100, 100, 50))
    begin(ledger)  # under way: whoever limits knows of it
    make(ledger, Scope("acme", "usr_eve"))
    (day,) = {line.day for line in await ledger.totals("2026-01-01")}
    assert await ledger.spent("acme", "usr_ada", since_day=day) == Spent(15 + 200, first + second)
    assert await ledger.spent("acme", key="key_ada", since_day=day) == Spent(15 + 200, first + second)
    assert (await ledger.spent("acme", since_day=day)).tokens == 15 + 200 + 15
    assert await ledger.spent("globex", since_day=day) == Spent()
    assert await ledger.totals("2999-01-01") == []


async def test_days_are_those_of_the_beginning_in_utc(database: Database, tmp_path: Path) -> None:
    clock = [1_795_305_599.0]  # 2026-11-21T23:59:59Z
    ledger = Ledger(database, tmp_path / "usage", lambda: clock[0])
    await ledger.start()
    over_midnight = begin(ledger)
    clock[0] += 2
    ledger.end(over_midnight, call(Usage(1, 1)), 7, None)
    make(ledger)
    assert {line.day: line.cost for line in await ledger.totals("2026-11-21")}["2026-11-21"] == 7
    await ledger.flush()
    lines = await ledger.totals("2026-11-21")
    assert sorted(line.day for line in lines) == ["2026-11-21", "2026-11-22"]
    assert [line.day for line in await ledger.totals("2026-11-22")] == ["2026-11-22"]
    await ledger.close()


async def test_the_last_minute(database: Database, tmp_path: Path) -> None:
    clock = [1_795_000_000.0]
    ledger = Ledger(database, tmp_path / "usage", lambda: clock[0])
    await ledger.start()
    for _ in range(4):
        make(ledger)
        clock[0] += 25
    await ledger.flush()
    make(ledger, BOB, Usage(1, 2))
    found = await ledger.recent()
    assert [(each.tenant, each.started, each.tokens) for each in found] == [
        ("acme", 1_795_000_050.0, 15), ("acme", 1_795_000_075.0, 15), ("globex", 1_795_000_100.0, 3),
    ]  # fmt: skip
    await ledger.close()


# -- erasure


@pytest.mark.both
async def test_an_erased_person_leaves_numbers_without_names(database: Database, ledger: Ledger) -> None:
    eve = Scope("acme", "usr_eve", "key_eve", "job_eve")
    scopes = [ADA, Scope("acme", "usr_ada", None, "job_1"), Scope("globex", "usr_ada"), eve, Scope("acme")]
    spent = sum(make(ledger, scope, model=model) for scope in scopes for model in ("a", "b"))
    under_way = begin(ledger)
    await ledger.flush()
    await database.write(ledger.erase, "usr_ada")
    spent += 9
    ledger.end(under_way, call(Usage(1, 1)), 9, None)
    await ledger.flush()
    calls, days = await database.read(sums)
    assert calls == days
    assert (calls[0], calls[6]) == (11, spent)
    found = await rows(database)
    assert {(row.user_id, row.key_id, row.job_id) for row in found} == {(None,) * 3, ("usr_eve", "key_eve", "job_eve")}
    by_day = await database.read(lambda session: session.exec(select(UsageDayRow)).all())
    assert {(row.user_id, row.key_id) for row in by_day} == {("", ""), ("usr_eve", "key_eve")}
    with pytest.raises(ValueError, match="nobody"):
        await database.write(ledger.erase, "")


async def test_an_erasure_that_is_rolled_back_forgets_nobody(database: Database, ledger: Ledger) -> None:
    def work(session: object) -> None:
        ledger.erase(session, "usr_ada")  # type: ignore[arg-type]
        raise Unavailable("no")

    with pytest.raises(Unavailable):
        await database.write(work)
    make(ledger)
    await ledger.flush()
    assert [row.user_id for row in await rows(database)] == ["usr_ada"]


async def test_an_erased_tenant_leaves_nothing(database: Database, ledger: Ledger) -> None:
    make(ledger)
    make(ledger, BOB)
    await ledger.flush()
    await database.write(ledger.erase_tenant, ADA)
    assert [row.tenant_id for row in await rows(database)] == ["globex"]
    assert await ledger.spent("acme", since_day="2026-01-01") == Spent()


# -- always: the days are the calls, summed


SCOPES = [ADA, BOB, Scope("acme"), Scope("acme", "usr_eve"), Scope("acme", "usr_ada", "key_2")]
STEPS = st.one_of(
    st.tuples(
        st.just("call"),
        st.sampled_from(SCOPES),
        st.sampled_from(["gpt-4o", "", "x" * 400, "a/b"]),
        st.sampled_from([PRICE, None]),
        st.builds(Usage, *[st.integers(0, 10**6)] * 3),
        st.sampled_from(["ok", "cancelled", "error"]),
    ),
    st.tuples(st.just("begin"), st.sampled_from(SCOPES)),
    st.tuples(st.just("pass"), st.integers(0, 200_000)),
    st.tuples(st.just("flush"), st.sampled_from(["", "before", "after"])),
    st.tuples(st.just("die")),
    st.tuples(st.just("erase"), st.sampled_from(["usr_ada", "usr_eve"])),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=8, max_size=30))
def test_the_sum_of_the_days_is_the_sum_of_the_calls(
    tmp_path_factory: pytest.TempPathFactory, migrated: Path, steps: list[tuple[Any, ...]]
) -> None:
    asyncio.run(_live(tmp_path_factory.mktemp("live"), migrated, steps))


async def _live(folder: Path, migrated: Path, steps: list[tuple[Any, ...]]) -> None:
    shutil.copy(migrated, folder / "terrace.db")
    database = SQLiteDatabase(folder / "terrace.db", durability="normal")
    life = Life(database, folder / "0")
    await life.ledger.start()
    for number, step in enumerate(steps):
        if step == ("die",):
            life = await life.next(folder / str(number + 1))
        else:
            await life.do(*step)
        if step[0] in ("flush", "die", "erase"):  # what writes to the database
            calls, days = await database.read(sums)
            assert calls == days
    life = await life.next(folder / "last")
    await life.ledger.close()
    calls, days = await database.read(sums)
    assert calls == days
    assert (calls[0], calls[6]) == (life.made, life.spent)
    await database.close()


class Life:
    """A process with its ledger, and what it and those before it made and spent."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = Shaky(database), folder
        self.ledger = Ledger(self.database, folder, lambda: self.moment, closing=0)
        self.moment, self.made, self.spent = 1_795_000_000.0, 0, 0

    async def do(self, what: object, *how: Any) -> None:
        match what, how:
            case "call", (scope, model, price, usage, outcome):
                cost = None if price is None else usage.input_tokens + usage.output_tokens
                slot = begin(self.ledger, scope, model, price)
                self.ledger.end(slot, call(usage, outcome), cost, price and price.dated)
                self.made, self.spent = self.made + 1, self.spent + (cost or 0)
            case "begin", (scope,):
                begin(self.ledger, scope)
                self.made, self.spent = self.made + 1, self.spent + RESERVED[2]  # it will be lost
            case "pass", (seconds,):
                self.moment += seconds
            case "flush", (failing,):
                self.database.fails = lambda: failing
                await self.ledger.catch_up()
                self.database.fails = lambda: ""
            case "erase", (user,):
                await self.database.write(self.ledger.erase, user)

    async def next(self, folder: Path) -> "Life":
        """`kill -9`, as far as files go: what the journal holds now is what the next process finds."""
        following = Life(self.database.database, folder)
        following.moment, following.made, following.spent = self.moment, self.made, self.spent
        await asyncio.to_thread(shutil.copytree, self.folder, folder)
        self.database.fails = lambda: "before"  # the dead write nothing any more
        await self.ledger.close()
        await following.ledger.start()
        return following
