"""Calls to be booked, and databases that misbehave."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select, text
from sqlmodel import Session

from terrace.errors import Unavailable
from terrace.storage import Database
from terrace.telemetry.calls import Call, Demand, Outcome, Usage
from terrace.telemetry.journal import Journal
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.prices import Price, cost
from terrace.telemetry.records import Entry, decode, unpack
from terrace.telemetry.tables import UsagePageRow
from terrace.types import Scope

ADA = Scope("acme", "usr_ada", "key_ada")
PRICE = Price(2_500_000, 1_250_000, 10_000_000, "2026-11-21")
RESERVED = (100, 50, 1_000_000_000)  # input, output, picodollars
SUMS = ("calls", "failed", "unpriced", "input_tokens", "cached_tokens", "output_tokens", "cost")


def demand(model: str = "gpt-4o", provider: str = "openai") -> Demand:
    return Demand(provider, "openai", model, "chat", RESERVED[0], RESERVED[1])


def call(usage: Usage | None = None, outcome: Outcome = "ok", code: str = "", model: str = "gpt-4o") -> Call:
    return Call("openai", model, "chat", outcome, code, 1.5, 0.25, usage, "acme")


def begin(ledger: Ledger, scope: Scope = ADA, model: str = "gpt-4o", price: Price | None = PRICE) -> int:
    return ledger.begin(scope, demand(model), *RESERVED[:2], price, None if price is None else RESERVED[2])


def make(
    ledger: Ledger,
    scope: Scope = ADA,
    usage: Usage | None = None,
    *,
    model: str = "gpt-4o",
    price: Price | None = PRICE,
) -> int:
    """A whole call; what it cost."""
    used = usage or Usage(10, 5)
    spent = None if price is None else cost(price, used)
    ledger.end(begin(ledger, scope, model, price), call(used, model=model), spent, price and price.dated)
    return spent or 0


def died(journal: Journal, folder: Path, name: str = "1-dead.journal") -> Path:
    """What a process leaves that dies in this moment: its file, which nobody locks."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(journal.path.read_bytes())
    return path


def booked(session: Session) -> list[Entry]:
    """Every call in the books, by when it began."""
    pages = session.execute(select(UsagePageRow)).scalars()
    return sorted(decode(call, page.journal) for page in pages for call in unpack(page.body))


def sums(session: Session) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Over the calls and over the days; they must be equal."""
    calls = [
        (1, each.outcome in ("error", "lost"), each.cost is None, each.input_tokens, each.cached_tokens,
         each.output_tokens, each.cost or 0)
        for each in booked(session)
    ]  # fmt: skip
    days = session.execute(
        text(f"SELECT {', '.join(f'COALESCE(SUM({name}), 0)' for name in SUMS)} FROM usage_days")
    ).one()
    return tuple(map(sum, zip(*calls, strict=True))) or (0,) * len(SUMS), tuple(days)


class Shaky:
    """A database whose writes may fail: before they are done, or after, when nobody hears that they were."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.dialect = database.dialect
        self.read = database.read
        self.watch = database.watch
        self.close = database.close
        self.fails: Callable[[], str] = lambda: ""  # "", "before" or "after"

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        if (when := self.fails()) == "before":
            raise Unavailable("The database is busy.")
        result = await self.database.write(work, *args, **kwargs)
        if when:
            raise Unavailable("The database gave no answer.")
        return result
