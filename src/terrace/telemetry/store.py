"""Rows of the usage ledger. Functions of a session: they run inside `Database.read` or `write`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, text
from sqlmodel import Session

from terrace.telemetry.journal import Entry, id_at
from terrace.types import Scope

SUMS = ("calls", "failed", "unpriced", "input_tokens", "cached_tokens", "output_tokens", "cost")
TIDIED = 2000  # rows a transaction: nobody waits long behind it

KNOWN = text("SELECT id FROM usage WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))
INSERT = text(
    "INSERT INTO usage (id, tenant_id, user_id, key_id, job_id, provider, model, operation, outcome, code, "
    "input_tokens, cached_tokens, output_tokens, estimated, cost, price_dated, started_at, duration, first_token) "
    "VALUES (:id, :tenant, :user, :key, :job, :provider, :model, :operation, :outcome, :code, :input_tokens, "
    ":cached_tokens, :output_tokens, :estimated, :cost, :price_dated, :started, :duration, :first_token)"
)
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
TOTALS = text(
    "SELECT tenant_id, user_id, key_id, day, SUM(input_tokens + output_tokens) AS tokens, SUM(cost) AS cost "
    "FROM usage_days WHERE day >= :since GROUP BY tenant_id, user_id, key_id, day"
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
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def known(session: Session, ids: Sequence[str]) -> set[str]:
    """Which of these calls are booked."""
    return set(session.execute(KNOWN, {"ids": ids}).scalars())


def book(session: Session, entries: Sequence[Entry], erased: Collection[str] = ()) -> list[Entry]:
    """Insert the calls that are not there yet and add them to their days; returns them.

    Doing it again changes nothing. Of the users in `erased` no link is kept.
    """
    booked = known(session, [entry.id for entry in entries])
    fresh = [entry for entry in entries if entry.id not in booked]
    if not fresh:
        return []
    rows = [_row(entry, nameless=entry.user in erased) for entry in fresh]
    session.execute(INSERT, rows)
    days: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        _add(days, row)
    session.execute(ADD, list(days.values()))
    return fresh


def _row(entry: Entry, *, nameless: bool) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in Entry.__slots__}
    return row | {"user": None, "key": None, "job": None} if nameless else row


def _add(days: dict[tuple[str, ...], dict[str, Any]], row: dict[str, Any]) -> None:
    model = f"{row['provider']}/{row['model']}"
    key = (row["tenant"], day_of(row["started"]), row["user"] or "", row["key"] or "", model)
    if (sums := days.get(key)) is None:
        named = dict(zip(("tenant", "day", "user", "key", "model"), key, strict=True))
        sums = days[key] = named | dict.fromkeys(SUMS, 0)
    sums["calls"] += 1
    sums["failed"] += row["outcome"] in ("error", "lost")
    sums["unpriced"] += row["cost"] is None
    sums["cost"] += row["cost"] or 0
    for name in ("input_tokens", "cached_tokens", "output_tokens"):
        sums[name] += row[name]


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


def tidy(session: Session, before: float) -> bool:
    """Remove some calls begun before that; whether there may be more. The sums stay."""
    result: Any = session.execute(TIDY, {"before": id_at(before)})
    return bool(result.rowcount >= TIDIED)
