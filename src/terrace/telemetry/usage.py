"""What was used and what it cost: reports over the sums by day, lists of single calls, CSV, export, tidying."""

import csv
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Literal

import msgspec
from sqlalchemy import RowMapping, text
from sqlmodel import Session

from terrace.errors import Invalid, bad_cursor
from terrace.storage import Database
from terrace.telemetry import store
from terrace.telemetry.calls import PICODOLLARS
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.records import Entry
from terrace.telemetry.store import SUMS
from terrace.types import Scope, moment, now

Group = Literal["day", "model", "user", "key"]
Labels = Callable[[Group, Sequence[str]], Awaitable[Mapping[str, str]]]
"""What to call users and keys; whoever is missing in the answer is called by their id."""

COLUMN: Mapping[str, str] = {"day": "day", "model": "model", "user": "user_id", "key": "key_id"}
NOBODY: Mapping[str, str] = {"user": "no account", "key": "no key"}
MAX_DAYS = 3660
MAX_ROWS = 5000  # of a report; what costs least is left out, of the rows but not of the total
MAX_LIMIT = 500  # calls a page
EXPORTED = 1000  # rows read at a time
CURSOR = r"use_[0-9a-f]{20,60}\.\d{1,9}"
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what a spreadsheet computes
TELLING = ", ".join(f"COALESCE(SUM({name}), 0) AS {name}" for name in SUMS)


@dataclass(frozen=True, slots=True)
class Line:
    """The sums of one day (UTC), model, user or key. `group` is its id, empty for what has none."""

    group: str
    label: str
    calls: int
    failed: int
    unpriced: int  # calls whose cost nobody knows; they are not in `cost`
    input_tokens: int
    cached_tokens: int  # of the input tokens
    output_tokens: int
    cost: float  # dollars


@dataclass(frozen=True, slots=True)
class Report:
    by: Group
    start: date
    end: date  # included
    rows: list[Line]
    total: Line


@dataclass(frozen=True, slots=True)
class UsedCall:
    """One model call of the ledger."""

    id: str
    started_at: datetime
    provider: str
    model: str
    operation: str
    outcome: str
    code: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    estimated: bool
    cost: float | None  # dollars; None: nobody knows the price
    price_dated: str | None
    duration: float  # seconds
    first_token: float | None
    user_id: str | None
    key_id: str | None
    job_id: str | None


class UsageReport:
    def __init__(self, database: Database, ledger: Ledger, clock: Callable[[], float] = now) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock

    async def by(
        self,
        scope: Scope,
        group: Group,
        start: date | str,
        end: date | str,
        *,
        user: str | None = None,
        key: str | None = None,
        model: str | None = None,
        tenant: str | None = None,
        labels: Labels | None = None,
    ) -> Report:
        """Days in their order, each of them; anything else dearest first. Both days are included. An empty `user` or
        `key` means what was nobody's; `model` is `<provider>/<model>`. Raises Invalid."""
        first, last = _days(start, end)
        if group not in COLUMN:
            raise Invalid("A report is by day, model, user or key.", code="bad_group")
        await self._ledger.catch_up()
        where = {"tenant": tenant or scope.tenant, "first": first.isoformat(), "last": last.isoformat()}
        rows, total = await self._database.read(_sums, group, where | _given(user_id=user, key_id=key, model=model))
        lines = _each_day(rows, first, last) if group == "day" else rows
        if labels is not None and group in NOBODY:
            lines = await _labelled(lines, group, labels)
        return Report(group, first, last, lines, total)

    async def calls(
        self,
        scope: Scope,
        *,
        limit: int = 50,
        cursor: str | None = None,
        user: str | None = None,
        key: str | None = None,
        model: str | None = None,
        outcome: str | None = None,
    ) -> tuple[list[UsedCall], str | None]:
        """Single calls, those booked last first, and the cursor of the next page, which may be there though this one
        is short: one answer looks through so many calls and no more. `model` is `<provider>/<model>` or a model's name;
        an empty `user` or `key` means nobody's. Raises Invalid."""
        if not 1 <= limit <= MAX_LIMIT:
            raise Invalid(f"limit must be between 1 and {MAX_LIMIT}.", code="bad_limit")
        if cursor is not None and not re.fullmatch(CURSOR, cursor):
            raise bad_cursor()
        await self._ledger.catch_up()
        wanted = _given(user_id=user, key_id=key, outcome=outcome)
        found, following = await self._database.read(store.calls, scope.tenant, wanted, model, cursor, limit)
        return [_call(entry) for entry in found], following

    async def of_job(self, scope: Scope, job_id: str, since: float) -> Line:
        """What the model calls of one job came to, those that failed or broke off too; it began at `since` or later."""
        await self._ledger.catch_up()
        wanted = _given(user_id=scope.user, job_id=job_id)
        found: list[Entry] = []
        cursor = None
        while True:
            some, cursor = await self._database.read(store.calls, scope.tenant, wanted, None, cursor, EXPORTED, since)
            found += some
            if cursor is None:
                return _sum(job_id, found)

    async def export(self, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """A tenant's calls and its sums by day, as JSON lines: the path in an archive, and the bytes."""
        await self._ledger.catch_up()
        yield "usage/calls.jsonl", self._export_calls(scope)
        yield "usage/days.jsonl", self._export_days(scope)

    async def tidy(self, keep_days: int) -> int:
        """For every day: book what processes left that died meanwhile, and remove single calls older than that, whose
        sums stay. Returns how many went."""
        await self._ledger.take_over()
        before = self._clock() - keep_days * 86_400
        gone = 0
        while removed := await self._database.write(store.tidy, before):
            gone += removed
        return gone

    async def _export_calls(self, scope: Scope) -> AsyncIterator[bytes]:
        cursor = None
        while True:
            found, cursor = await self._database.read(store.calls, scope.tenant, {}, None, cursor, EXPORTED)
            if found:
                yield _lines(asdict(_call(entry)) for entry in found)
            if cursor is None:
                return

    async def _export_days(self, scope: Scope) -> AsyncIterator[bytes]:
        after: Mapping[str, str] = dict.fromkeys(DAY_KEY, "")
        while True:
            rows = await self._database.read(_days_after, scope.tenant, after)
            if not rows:
                return
            yield _lines({**row, "cost": row["cost"] / PICODOLLARS} for row in rows)
            after = {name: rows[-1][name] for name in DAY_KEY}


def as_csv(report: Report) -> str:
    """A table for a spreadsheet, which shall compute nothing in it."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([report.by, "label", *SUMS])
    for line in (*report.rows, replace(report.total, group="", label="total")):
        numbers = (line.calls, line.failed, line.unpriced, line.input_tokens, line.cached_tokens, line.output_tokens)
        cost = f"{line.cost:.12f}".rstrip("0").rstrip(".")
        writer.writerow([_harmless(line.group), _harmless(line.label), *numbers, cost])
    return out.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.lstrip(" ").startswith(FORMULAS) else cell


# -- reading

DAY_KEY = ("day", "user_id", "key_id", "model")
DAYS_AFTER = text(
    f"SELECT day, user_id, key_id, model, {', '.join(SUMS)} FROM usage_days WHERE tenant_id = :tenant AND "
    f"(day, user_id, key_id, model) > (:day, :user_id, :key_id, :model) ORDER BY day, user_id, key_id, model "
    f"LIMIT {EXPORTED}"
)


def _sums(session: Session, group: Group, where: Mapping[str, str]) -> tuple[list[Line], Line]:
    column = COLUMN[group]
    filters = "".join(f" AND {name} = :{name}" for name in ("user_id", "key_id", "model") if name in where)
    source = f"FROM usage_days WHERE tenant_id = :tenant AND day BETWEEN :first AND :last{filters}"
    order = "1" if group == "day" else "cost DESC, calls DESC, 1"
    rows = session.execute(
        text(f"SELECT {column} AS name, {TELLING} {source} GROUP BY {column} ORDER BY {order} LIMIT {MAX_ROWS}"), where
    ).mappings()
    lines = [_line(row, row["name"], NOBODY.get(group, "")) for row in rows]
    total = session.execute(text(f"SELECT {TELLING} {source}"), where).mappings().one()
    return lines, _line(total, "", "total")


def _days_after(session: Session, tenant: str, after: Mapping[str, str]) -> Sequence[RowMapping]:
    return session.execute(DAYS_AFTER, {"tenant": tenant, **after}).mappings().all()


# -- shapes


def _line(row: RowMapping, group: str, label: str) -> Line:
    sums: dict[str, Any] = {name: int(row[name]) for name in SUMS}
    return Line(group, group or label, **sums | {"cost": sums["cost"] / PICODOLLARS})


def _call(entry: Entry) -> UsedCall:
    told = {name: getattr(entry, name) for name in UsedCall.__slots__}
    cost = None if entry.cost is None else entry.cost / PICODOLLARS
    return UsedCall(**told | {"started_at": moment(entry.started_at), "cost": cost})


def _sum(job_id: str, entries: Sequence[Entry]) -> Line:
    return Line(
        job_id,
        job_id,
        calls=len(entries),
        failed=sum(entry.outcome != "ok" for entry in entries),
        unpriced=sum(entry.cost is None for entry in entries),
        input_tokens=sum(entry.input_tokens for entry in entries),
        cached_tokens=sum(entry.cached_tokens for entry in entries),
        output_tokens=sum(entry.output_tokens for entry in entries),
        cost=sum(entry.cost or 0 for entry in entries) / PICODOLLARS,
    )


def _each_day(rows: Sequence[Line], first: date, last: date) -> list[Line]:
    known = {row.group: row for row in rows}
    days = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
    return [known.get(day) or Line(day, day, 0, 0, 0, 0, 0, 0, 0.0) for day in days]


async def _labelled(rows: Sequence[Line], group: Group, labels: Labels) -> list[Line]:
    names = await labels(group, [row.group for row in rows if row.group])
    return [replace(row, label=names.get(row.group, row.label)) for row in rows]


def _given(**wanted: str | None) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if value is not None}


def _days(start: date | str, end: date | str) -> tuple[date, date]:
    first, last = _day(start), _day(end)
    if not 0 <= (last - first).days < MAX_DAYS:
        raise Invalid(
            f"A report goes from a day to the same or a later one, over at most {MAX_DAYS:,} days.", code="bad_dates"
        )
    return first, last


def _day(told: date | str) -> date:
    if isinstance(told, str):
        try:
            return date.fromisoformat(told)
        except ValueError as error:
            raise Invalid("A day is written like 2026-11-21.", code="bad_dates") from error
    return told


def _lines(rows: Any) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
