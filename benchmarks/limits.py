"""What a model call pays for its limits, against the budget of 6 us beyond the ledger's own cost.

`python -m benchmarks.limits` prints the CPU of one `begin` with its `end`: without any limit (the reference), with five
limits, with fifteen (tenant, user and key have five each), and while a thousand other calls are under way; then that of
the real ledger alone, of a request at a door, and of refusing.
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from terrace import settings
from terrace.accounts.limits.base import LimitName, Subject
from terrace.accounts.limits.memory import MemoryLimits
from terrace.accounts.limits.seeding import DayTotal, RecentCall
from terrace.accounts.tables import KeyRow, MembershipRow, TenantRow, UserRow
from terrace.errors import Limited
from terrace.storage import SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.telemetry.calls import Call, Demand, Usage
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.prices import Price
from terrace.types import Scope, now

Row = tuple[str, str, str]  # what, measured, budget
CALLS = 20_000
ROUNDS = 5
FIVE: dict[LimitName, float | None] = {
    "requests_per_minute": 10**9,
    "tokens_per_minute": 10**12,
    "tokens_per_day": 10**12,
    "money_per_day": 10**6,
    "concurrent_requests": 10**6,
}
PRICE = Price(150_000, 75_000, 600_000, "2026-11-21")
DEMAND = Demand("box", "openai", "gpt", "chat", 120, 400, requests=1)
DONE = Call("box", "gpt", "chat", "ok", "", 1.0, 0.1, Usage(100, 200), "full")


class NoBooks:
    """A ledger that costs nothing."""

    def begin(self, *_: object) -> int:
        return 0

    def end(self, *_: object) -> None: ...

    async def totals(self, since_day: str) -> Sequence[DayTotal]:
        return ()

    async def recent(self, seconds: float = 60.0) -> Sequence[RecentCall]:
        return ()


class OnePrice:
    def of(self, kind: str, provider: str, model: str) -> Price | None:
        return PRICE


def nothing_stored(*_: object) -> tuple[int, int]:
    return 0, 0


def cpu(work: Callable[[], object], count: int = CALLS) -> float:
    """Microseconds of CPU one takes: the best of some rounds."""
    found = []
    for _ in range(ROUNDS):
        gc.collect()
        started = time.process_time()
        for _ in range(count):
            work()
        found.append((time.process_time() - started) / count * 1e6)
    return min(found)


async def people(database: SQLiteDatabase) -> None:
    """Tenant, user and key that limits can be set for."""

    def write(session: object) -> None:
        at = now()
        session.add(TenantRow(id="full", name="full", name_key="full", models=[], created_at=at))  # type: ignore[attr-defined]
        session.add(UserRow(id="usr_a", name="a", email="a@a", email_key="a@a", created_at=at))  # type: ignore[attr-defined]
        session.flush()  # type: ignore[attr-defined]
        session.add(MembershipRow(tenant_id="full", user_id="usr_a", role="member", created_at=at))  # type: ignore[attr-defined]
        session.add(KeyRow(id="key_a", tenant_id="full", name="a", secret_hash="", hint="", created_at=at))  # type: ignore[attr-defined]

    await database.write(write)


async def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        database = SQLiteDatabase(Path(folder) / "bench.db")
        await database.write(lambda session: migrate(session.connection()))
        await people(database)
        ledger = Ledger(database, Path(folder) / "usage")
        await ledger.start()
        limits = MemoryLimits(database, NoBooks(), OnePrice(), lambda _: None, settings.Limits(), stored=nothing_stored)
        await limits.start()
        rows = await _calls(limits)
        rows.append(("the real ledger alone, begin and end", f"{await _ledger(ledger):.2f} us", ""))
        await limits.close()
        await ledger.close()
        await database.close()
    return rows


async def _calls(limits: MemoryLimits) -> list[Row]:
    def call(scope: Scope) -> Callable[[], None]:
        return lambda: limits.begin(scope, DEMAND).end(DONE)

    none = cpu(call(Scope("free", "usr_a", "key_a")))
    rows = [("begin and end, no limit set (the reference)", f"{none:.2f} us", "")]
    await limits.change(Subject("full"), FIVE, "terminal")
    five = cpu(call(Scope("full")))
    rows.append(("begin and end, five limits", f"{five:.2f} us ({five - none:.2f} for the limits)", "<= 6 us"))
    await limits.change(Subject("full", "user", "usr_a"), FIVE, "terminal")
    await limits.change(Subject("full", "key", "key_a"), FIVE, "terminal")
    fifteen = cpu(call(Scope("full", "usr_a", "key_a")))
    rows.append(("begin and end, fifteen limits", f"{fifteen:.2f} us", ""))
    opened = [limits.begin(Scope("full"), DEMAND) for _ in range(1000)]
    rows.append(("begin and end, five limits, 1,000 calls under way", f"{cpu(call(Scope('full'))):.2f} us", "<= 6 us"))
    for each in opened:
        each.end(DONE)
    rows.append(
        (
            "a request at a door, fifteen limits",
            f"{cpu(lambda: limits.count(Scope('full', 'usr_a', 'key_a'))):.2f} us",
            "",
        )
    )
    await limits.change(Subject("tight"), {"tokens_per_minute": 100_000}, "terminal")
    small = Demand("box", "openai", "gpt", "chat", 50, 50, requests=1)
    for _ in range(1000):
        limits.begin(Scope("tight"), small)
    rows.append(
        (
            "refusing a call, its sentence included",
            f"{cpu(lambda: _passes(limits, Scope('tight'), small), 2000):.1f} us",
            "",
        )
    )
    return rows


def _passes(limits: MemoryLimits, scope: Scope, demand: Demand) -> bool:
    try:
        limits.begin(scope, demand)
    except Limited:
        return False
    return True


async def _ledger(ledger: Ledger) -> float:
    scope = Scope("full", "usr_a", "key_a")
    spent = 0.0
    for _ in range(20):
        started = time.process_time()
        for _ in range(500):
            ledger.end(ledger.begin(scope, DEMAND, 120, 400, PRICE, 10**6), DONE, 10**6, PRICE.dated)
        spent += time.process_time() - started
        await ledger.flush()
    return spent / 10_000 * 1e6


def main() -> None:
    for what, measured, budget in [("what", "measured", "budget"), *asyncio.run(measure())]:
        print(f"{what:<62} {measured:<44} {budget}", flush=True)


if __name__ == "__main__":
    main()
