"""Rows of the usage ledger. Functions of a session: they run inside `Database.read` or `write`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect, bindparam, insert, text
from sqlmodel import Session

from terrace.telemetry.journal import Entry, id_at
from terrace.telemetry.tables import UsageRow
from terrace.types import Scope

SUMS = ("calls", "failed", "unpriced", "input_tokens", "cached_tokens", "output_tokens", "cost")
ASKED = 1000  # ids in one statement
TOGETHER = (1000, 100, 10, 1)  # rows in one statement
TIDIED = 1000  # rows a transaction: nobody waits long behind it

KNOWN = text("SELECT id FROM usage WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))
ADDING = (
    "ON CONFLICT (tenant_id, day, user_id, key_id, model) DO UPDATE SET "
    + ", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in SUMS)
)  # fmt: skip
ADD = text(
    f"INSERT INTO usage_days (tenant_id, day, user_id, key_id, model, {', '.join(SUMS)}) "
    f"VALUES (:tenant, :day, :user, :key, :model, {', '.join(f':{name}' for name in SUMS)}) {ADDING}"
)
FORGET_CALLS = text("UPDATE usage SET user_id = NULL, key_id = NULL, job_id = NULL WHERE user_id = :user")
FORGET_DAYS = text(
    f"INSERT INTO usage_days (tenant_id, day, user_id, key_id, model, {', '.join(SUMS)}) "
    f"SELECT tenant_id, day, '', '', model, {', '.join(f'SUM({name})' for name in SUMS)} FROM usage_days "
    f"WHERE user_id = :user GROUP BY tenant_id, day, model {ADDING}"
)
DROP_DAYS = text("DELETE FROM usage_days WHERE user_id = :user")
ERASE_CALLS = text("DELETE FROM usage WHERE tenant_id = :tenant")
ERASE_DAYS = text("DELETE FROM usage_days WHERE tenant_id = :tenant")
TIDY = text(
    f"DELETE FROM usage WHERE id IN (SELECT id FROM usage WHERE id < :before ORDER BY id LIMIT {TIDIED})"
)  # fmt: skip
TOTALS = text(  # with both ends, SQLite goes by the index on the day; with one it would read every day there is
    "SELECT tenant_id, user_id, key_id, day, SUM(input_tokens + output_tokens) AS tokens, SUM(cost) AS cost "
    "FROM usage_days WHERE day BETWEEN :since AND '9999-12-31' GROUP BY tenant_id, user_id, key_id, day"
)
RECENT = text(
    "SELECT tenant_id, user_id, key_id, started_at, input_tokens + output_tokens AS tokens FROM usage "
    "WHERE id >= :since ORDER BY id"
)


@dataclass(frozen=True, slots=True)
class Total:
    """What one user came to with one key on one day; either may be nobody's or none."""

    tenant: str
    user: str | None
    key: str | None
    day: str  # UTC, 2026-11-21
    tokens: int
    cost: int  # picodollars


@dataclass(frozen=True, slots=True)
class Recent:
    """A call that began a moment ago."""

    tenant: str
    user: str | None
    key: str | None
    started: float
    tokens: int


def day_of(moment: float) -> str:
    """The UTC day of a moment: 2026-11-21."""
    return _day(int(moment // 86_400))


@lru_cache(maxsize=64)
def _day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()


def known(session: Session, ids: Sequence[str]) -> set[str]:
    """Which of these calls are booked."""
    found: set[str] = set()
    for start in range(0, len(ids), ASKED):
        found.update(session.execute(KNOWN, {"ids": ids[start : start + ASKED]}).scalars())
    return found


def book(
    session: Session, entries: Sequence[Entry], erased: Collection[str] = (), *, first: bool = False
) -> list[Entry]:
    """Insert the calls that are not there yet and add them to their days; returns them.

    Doing it again changes nothing. `first`: it was surely not tried before. Of the users in `erased` no link is kept.
    """
    booked = set() if first else known(session, [entry.id for entry in entries])
    fresh = [entry for entry in entries if entry.id not in booked]
    if not fresh:
        return []
    if erased:
        fresh = [_nameless(entry) if entry.user_id in erased else entry for entry in fresh]
    connection = session.connection()  # to the tables directly: a session would make an object of each row
    _insert(connection, fresh)
    connection.execute(ADD, _by_day(fresh))
    return fresh


def _insert(connection: Connection, entries: Sequence[Entry]) -> None:
    """Many rows a statement, written once: a fifth of what a statement a row costs, and the event loop's thread is
    interrupted once instead of once a row."""
    done = 0
    for rows in TOGETHER:
        while len(entries) - done >= rows:
            statement, names = _statement(connection.dialect, rows)
            values = [value for entry in entries[done : done + rows] for value in entry]
            connection.exec_driver_sql(statement, dict(zip(names, values, strict=True)) if names else tuple(values))
            done += rows


@lru_cache(maxsize=8)
def _statement(dialect: Dialect, rows: int) -> tuple[str, Sequence[str]]:
    """The statement, and the names of its parameters where the driver wants names."""
    names = [f"{name}_{row}" for row in range(rows) for name in Entry._fields]
    fields = len(Entry._fields)
    values: list[dict[str, Any]] = [
        dict(zip(Entry._fields, map(bindparam, names[at : at + fields]), strict=True))
        for at in range(0, len(names), fields)
    ]
    compiled = insert(UsageRow).values(values).compile(dialect=dialect)
    return str(compiled), () if compiled.positiontup == names else names


def _nameless(entry: Entry) -> Entry:
    return entry._replace(user_id=None, key_id=None, job_id=None)


def _by_day(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    days: dict[tuple[str, str, str, str, str], list[int]] = {}
    for entry in entries:
        model = f"{entry.provider}/{entry.model}"
        key = (entry.tenant_id, day_of(entry.started_at), entry.user_id or "", entry.key_id or "", model)
        if (sums := days.get(key)) is None:
            sums = days[key] = [0] * len(SUMS)
        sums[0] += 1
        sums[1] += entry.outcome in ("error", "lost")
        sums[2] += entry.cost is None
        sums[3] += entry.input_tokens
        sums[4] += entry.cached_tokens
        sums[5] += entry.output_tokens
        sums[6] += entry.cost or 0
    named = ("tenant", "day", "user", "key", "model", *SUMS)
    return [dict(zip(named, (*key, *sums), strict=True)) for key, sums in days.items()]


def totals(session: Session, since_day: str) -> list[Total]:
    rows = session.execute(TOTALS, {"since": since_day})
    return [
        Total(row.tenant_id, row.user_id or None, row.key_id or None, row.day, int(row.tokens), int(row.cost))
        for row in rows
    ]


def recent(session: Session, since: float) -> list[Recent]:
    rows = session.execute(RECENT, {"since": id_at(since)})
    return [Recent(row.tenant_id, row.user_id, row.key_id, row.started_at, row.tokens) for row in rows]


def erase(session: Session, user_id: str) -> None:
    """Keep the numbers and no link to the person."""
    if not user_id:
        raise ValueError("nobody cannot be erased")
    session.execute(FORGET_CALLS, {"user": user_id})
    session.execute(FORGET_DAYS, {"user": user_id})
    session.execute(DROP_DAYS, {"user": user_id})


def erase_tenant(session: Session, scope: Scope) -> None:
    session.execute(ERASE_CALLS, {"tenant": scope.tenant})
    session.execute(ERASE_DAYS, {"tenant": scope.tenant})


def tidy(session: Session, before: float) -> int:
    """Remove calls begun before that, at most so many as are tidied at a time; returns how many. The sums stay."""
    result: Any = session.execute(TIDY, {"before": id_at(before)})
    return int(result.rowcount)
