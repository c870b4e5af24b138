"""What keeping the books costs: `python -m benchmarks.ledger`.

CPU of `begin` and `end`, which every model call pays on its way; of booking a row, the database's thread included; the
time to take over what a dead process left; and a report over a year. References in the same run: the bare copy of a
slot into mapped memory, and the same rows given to sqlite3 alone in groups as large. Ends with 1 if a budget is missed.
"""

import asyncio
import mmap
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path

from sqlalchemy import insert
from sqlmodel import Session

from terrace.storage import SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.telemetry.calls import Call, Demand, Usage
from terrace.telemetry.journal import STEP, Journal
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.prices import Prices, cost
from terrace.telemetry.records import SLOT, Entry, decode
from terrace.telemetry.tables import UsageDayRow
from terrace.telemetry.usage import Group, UsageReport
from terrace.types import Scope, new_id, now

ROUNDS = 5  # the best counts: what disturbs a run only makes it slower
CALLS = 20_000
LEFT = 10_000  # slots of a dead process
BEGIN_END_BUDGET = 5000.0  # ns
PRICE_BUDGET = 300.0  # ns
REPORT_BUDGET = 100.0  # ms
GROUP = 500  # rows in a transaction of the reference

SCOPE = Scope(new_id("tnt"), new_id("usr"), new_id("key"))
DEMAND = Demand("openai", "openai", "gpt-4o-mini", "chat", 1200, 800)
USED = Call("openai", "gpt-4o-mini", "chat", "ok", "", 1.25, 0.2, Usage(1000, 300, 500), SCOPE.tenant)

Row = tuple[str, str, str, bool]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[SQLiteDatabase, Ledger, Prices]]:
    database = SQLiteDatabase(folder / "terrace.db")
    await database.write(lambda session: migrate(session.connection()))
    prices, ledger = Prices(database), Ledger(database, folder / "usage")
    await prices.load()
    await ledger.start()
    yield database, ledger, prices
    await ledger.close()
    await prices.close()
    await database.close()


def best(measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(ROUNDS))


def per_call(work: Callable[[], object], count: int = CALLS) -> float:
    """Nanoseconds of CPU."""
    begun = time.thread_time_ns()
    for _ in range(count):
        work()
    return (time.thread_time_ns() - begun) / count


def copy_of_a_slot() -> float:
    memory, slot = mmap.mmap(-1, SLOT * STEP), bytes(SLOT)

    def copy() -> None:
        memory[SLOT : 2 * SLOT] = slot

    return best(lambda: per_call(copy))


async def on_the_way(ledger: Ledger, prices: Prices) -> tuple[float, float, float]:
    """ns of a price, a begin and an end; a thousand calls are under way at a time."""
    price = prices.of(DEMAND.kind, DEMAND.provider, DEMAND.model)
    assert price is not None
    assert USED.usage is not None
    reserved, spent = cost(price, Usage(1200, 800)), cost(price, USED.usage)
    looking_up = best(lambda: per_call(lambda: prices.of(DEMAND.kind, DEMAND.provider, DEMAND.model)))
    beginning = ending = float("inf")
    for _ in range(ROUNDS * 4):
        started = time.thread_time_ns()
        slots = [ledger.begin(SCOPE, DEMAND, 1200, 800, price, reserved) for _ in range(1000)]
        begun = time.thread_time_ns()
        for slot in slots:
            ledger.end(slot, USED, spent, price.dated)
        ended = time.thread_time_ns()
        beginning, ending = min(beginning, (begun - started) / 1000), min(ending, (ended - begun) / 1000)
        await ledger.flush()
    return looking_up, beginning, ending


async def booking(ledger: Ledger) -> float:
    """us of CPU a row, all threads."""
    least = float("inf")
    for _ in range(ROUNDS):
        for _ in range(5000):
            ledger.end(ledger.begin(SCOPE, DEMAND, 1200, 800, None, None), USED, 1_000_000, "2026-11-21")
        begun = time.process_time()
        await ledger.flush()
        least = min(least, (time.process_time() - begun) / 5000 * 1e6)
    return least


def left(folder: Path) -> Path:
    """The file of a process that died with calls ended and under way."""
    journal = Journal(folder / "living")
    for number in range(LEFT):
        slot = journal.begin(SCOPE, DEMAND, now(), 1200, 800, 5_000_000, "2026-11-21")
        if number % 2:
            journal.end(slot, USED, 1_000_000, "2026-11-21")
    (folder / "usage").mkdir(exist_ok=True)
    copy = folder / "usage" / "1-dead.journal"
    copy.write_bytes(journal.path.read_bytes())
    journal.free(range(1, LEFT + 1))
    journal.close()
    return copy


def sqlite_alone(folder: Path) -> float:
    """us of CPU a row: the ledger's table and indexes, nothing else."""
    journal = Journal(folder)
    slots = []
    for _ in range(5000):
        slots.append(journal.begin(SCOPE, DEMAND, now(), 1200, 800, 5_000_000, "2026-11-21"))
        journal.end(slots[-1], USED, 1_000_000, "2026-11-21")
    rows = [tuple(decode(slot, journal.id)) for slot in journal.read(slots)]
    connection = sqlite3.connect(folder / "alone.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"CREATE TABLE usage ({', '.join(Entry._fields)}, PRIMARY KEY (id))")
    connection.execute("CREATE INDEX one ON usage (tenant_id, id)")
    connection.execute("CREATE INDEX two ON usage (user_id, tenant_id, id)")
    begun = time.process_time()
    for start in range(0, len(rows), GROUP):
        connection.execute("BEGIN IMMEDIATE")
        marks = ", ".join("?" * len(Entry._fields))
        connection.executemany(f"INSERT INTO usage VALUES ({marks})", rows[start : start + GROUP])
        connection.execute("COMMIT")
    spent = (time.process_time() - begun) / len(rows) * 1e6
    connection.close()
    return spent


def fill_a_year(session: Session) -> None:
    """A year of 50 people with four models each: 73,000 sums, of some millions of calls."""
    first = date(2025, 11, 21)
    sums = {"calls": 60, "failed": 1, "unpriced": 0, "input_tokens": 60_000, "cached_tokens": 0, "output_tokens": 9000}
    rows = [
        {"tenant_id": SCOPE.tenant, "day": (first + timedelta(days=day)).isoformat(), "user_id": f"usr_{user}",
         "key_id": "", "model": f"openai/m{model}", "cost": 10**9, **sums}
        for day in range(365) for user in range(50) for model in range(4)
    ]  # fmt: skip
    session.connection().execute(insert(UsageDayRow), rows)


async def reporting(database: SQLiteDatabase, ledger: Ledger) -> dict[str, float]:
    """ms of wall time for a year's report."""
    await database.write(fill_a_year)
    usage = UsageReport(database, ledger)
    medians: dict[str, float] = {}
    groups: tuple[Group, ...] = ("day", "model", "user")
    for group in groups:
        times = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            await usage.by(SCOPE, group, "2025-11-21", "2026-11-20")
            times.append((time.perf_counter() - begun) * 1000)
        medians[group] = sorted(times)[ROUNDS // 2]
    return medians


async def measured(folder: Path) -> list[Row]:
    copying = copy_of_a_slot()
    alone = sqlite_alone(folder / "alone")
    async with opened(folder) as (database, ledger, prices):
        price, beginning, ending = await on_the_way(ledger, prices)
        row = await booking(ledger)
        left(folder)
        begun = time.perf_counter()
        recovered = await ledger.take_over()
        taking_over = time.perf_counter() - begun
        assert (recovered.ended, recovered.lost) == (LEFT // 2, LEFT // 2)
        reports = await reporting(database, ledger)
    both, slowest = beginning + ending, max(reports.values())
    return [
        ("reference: a slot copied into mapped memory", f"{copying:,.0f} ns", "", True),
        ("a price looked up", f"{price:,.0f} ns", f"<= {PRICE_BUDGET:,.0f} ns", price <= PRICE_BUDGET),
        ("begin", f"{beginning:,.0f} ns", "", True),
        ("end", f"{ending:,.0f} ns", "", True),
        ("begin and end of a call", f"{both:,.0f} ns", f"<= {BEGIN_END_BUDGET:,.0f} ns", both <= BEGIN_END_BUDGET),
        (f"reference: sqlite3 alone, a row, groups of {GROUP}", f"{alone:.1f} us", "", True),
        ("a call booked: kept, and added to its day", f"{row:.1f} us", "", True),
        (f"{LEFT:,} calls of a dead process taken over", f"{taking_over:.2f} s", "", True),
        *((f"a year of 73,000 sums by {group}", f"{wall:.1f} ms", "", True) for group, wall in reports.items()),
        ("the slowest of them", f"{slowest:.1f} ms", f"<= {REPORT_BUDGET:.0f} ms", slowest <= REPORT_BUDGET),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "alone").mkdir()
        rows = asyncio.run(measured(Path(folder)))
    print(f"{'what (CPU; wall time where seconds)':<52} {'measured':>12} {'budget':>12}")
    for what, figure, budget, _ in rows:
        print(f"{what:<52} {figure:>12} {budget:>12}")
    sys.exit(not all(fine for *_, fine in rows))


if __name__ == "__main__":
    main()
