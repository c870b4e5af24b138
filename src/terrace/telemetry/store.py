"""The usage ledger in the database. Functions of a session: they run inside `Database.read` or `write`."""

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Row, insert, text
from sqlmodel import Session

from terrace.telemetry import records
from terrace.telemetry.records import Entry, id_at
from terrace.telemetry.tables import UsagePageRow
from terrace.types import Scope

SUMS = ("calls", "failed", "unpriced", "input_tokens", "cached_tokens", "output_tokens", "cost")
PAGE = 1000  # calls
READ = 20  # pages at a time
SCANNED = 200_000  # calls that are looked through for one answer
TIDIED = 100  # pages a transaction: nobody waits long behind it
LAST = 2**31 - 1  # the batch that holds what a dead process left

BATCH = text("SELECT MAX(batch) FROM usage_pages WHERE journal = :journal")
OF_BATCH = text("SELECT body FROM usage_pages WHERE journal = :journal AND batch = :batch")
ADDING = (
    "ON CONFLICT (tenant_id, day, user_id, key_id, model) DO UPDATE SET "
    + ", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in SUMS)
)  # fmt: skip
ADD = text(
    f"INSERT INTO usage_days (tenant_id, day, user_id, key_id, model, {', '.join(SUMS)}) "
    f"VALUES (:tenant, :day, :user, :key, :model, {', '.join(f':{name}' for name in SUMS)}) {ADDING}"
)
ABOUT = text("SELECT id, about, body FROM usage_pages WHERE about LIKE :about ESCAPE '!' ORDER BY id")
REWRITE = text("UPDATE usage_pages SET about = :about, body = :body WHERE id = :id")
FORGET_DAYS = text(
    f"INSERT INTO usage_days (tenant_id, day, user_id, key_id, model, {', '.join(SUMS)}) "
    f"SELECT tenant_id, day, '', '', model, {', '.join(f'SUM({name})' for name in SUMS)} FROM usage_days "
    f"WHERE user_id = :user GROUP BY tenant_id, day, model {ADDING}"
)
DROP_DAYS = text("DELETE FROM usage_days WHERE user_id = :user")
ERASE_CALLS = text("DELETE FROM usage_pages WHERE tenant_id = :tenant")
ERASE_DAYS = text("DELETE FROM usage_days WHERE tenant_id = :tenant")
OLD = text(f"SELECT id, calls FROM usage_pages WHERE id < :before ORDER BY id LIMIT {TIDIED}")
TIDY = text("DELETE FROM usage_pages WHERE id <= :last")
TOTALS = text(  # with both ends, SQLite goes by the index on the day; with one it would read every day there is
    "SELECT tenant_id, user_id, key_id, day, SUM(input_tokens + output_tokens) AS tokens, SUM(cost) AS cost "
    "FROM usage_days WHERE day BETWEEN :since AND '9999-12-31' GROUP BY tenant_id, user_id, key_id, day"
)
SPENT = (
    "SELECT COALESCE(SUM(input_tokens + output_tokens), 0) AS tokens, COALESCE(SUM(cost), 0) AS cost FROM usage_days "
    "WHERE tenant_id = :tenant AND day BETWEEN :first AND :last"
)
RECENT = text("SELECT journal, body FROM usage_pages WHERE id >= :since ORDER BY id")


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


class Batch:
    """Calls of one journal that are booked together, and their sums. Made by whoever has the time: the database's
    thread would take Python's lock from the thread that makes the calls, which costs both more than the work."""

    def __init__(self, journal: int, number: int, slots: Sequence[bytes], erased: Collection[str] = ()) -> None:
        """Of the users in `erased` no link is kept."""
        self.journal = journal
        self.number = number
        self.erased = frozenset(erased)
        self.lost = 0
        self.pages: list[_Page] = []
        self.days: dict[tuple[str, int, str, str, str], list[int]] = {}
        open: dict[str, _Page] = {}
        places: dict[tuple[bytes, int], tuple[_Page, list[int]]] = {}
        for slot in slots:
            call = records.nameless(records.record(slot), erased) if erased else records.record(slot)
            names, started, lost, failed, read, cached, written, cost = records.numbers(call)
            day = int(started // 86_400)
            place = places.get((names, day))
            if place is None or len(place[0].calls) == PAGE:
                place = places[names, day] = self._place(open, names, day)
            page, sums = place
            page.calls.append(call)
            sums[0] += 1
            sums[1] += failed
            sums[2] += cost is None
            sums[3] += read
            sums[4] += cached
            sums[5] += written
            sums[6] += cost or 0
            self.lost += lost
        self.ended = len(slots) - self.lost

    def _place(self, open: dict[str, "_Page"], names: bytes, day: int) -> tuple["_Page", list[int]]:
        tenant, user, key, _, provider, model = records.apart(names)
        who = (user or "", key or "", f"{provider}/{model}")
        page = open.get(tenant)
        if page is None or len(page.calls) == PAGE:
            page = open[tenant] = _Page(tenant)
            self.pages.append(page)
        page.about.add(who)
        return page, self.days.setdefault((tenant, day, *who), [0] * len(SUMS))


@dataclass(slots=True)
class _Page:
    tenant: str
    calls: list[bytes] = field(default_factory=list)
    about: set[tuple[str, str, str]] = field(default_factory=set)  # user, key, model


def batch_of(session: Session, journal: int) -> int:
    """The last that was booked of this journal; -1 before the first."""
    last = session.execute(BATCH, {"journal": journal}).scalar()
    return -1 if last is None else int(last)


def book(session: Session, batch: Batch, moment: float) -> bool:
    """Keep the calls and add them to their days; False when it was done before."""
    if not batch.pages or batch_of(session, batch.journal) >= batch.number:
        return False
    connection = session.connection()  # to the tables directly: a session would make an object of each row
    pages = [
        {
            "id": f"{id_at(moment)}{batch.journal:010x}{batch.number:08x}{number:06x}", "tenant_id": page.tenant,
            "journal": batch.journal, "batch": batch.number, "calls": len(page.calls), "about": _about(page.about),
            "body": records.pack(page.calls),
        }
        for number, page in enumerate(batch.pages)
    ]  # fmt: skip
    connection.execute(insert(UsagePageRow), pages)
    # in one order, so that processes that book at the same time wait for each other and never around a corner
    columns = ("tenant", "day", "user", "key", "model", *SUMS)
    days = [(tenant, _day(day), *who, *sums) for (tenant, day, *who), sums in sorted(batch.days.items())]
    connection.execute(ADD, [dict(zip(columns, values, strict=True)) for values in days])
    return True


def left_of(session: Session, journal: int, slots: Sequence[bytes]) -> Batch:
    """What a dead process left, but for what it had booked itself and not yet taken out of its journal."""
    last = batch_of(session, journal)
    pages = session.execute(OF_BATCH, {"journal": journal, "batch": last}).scalars()
    known = {records.sequence(call) for page in pages for call in records.unpack(page)}
    return Batch(journal, LAST, [slot for slot in slots if records.sequence(slot) not in known])


def _about(who: Collection[tuple[str, str, str]]) -> str:
    """`\x1f`, which stands in no id, before and after each."""
    return "".join(f"\x1f{user}\x1f{key}\x1f{model}\x1f" for user, key, model in sorted(who)).replace("\0", "\ufffd")


def _like(name: str) -> str:
    escaped = name.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}\x1f%"


def totals(session: Session, since_day: str) -> list[Total]:
    rows = session.execute(TOTALS, {"since": since_day})
    return [
        Total(row.tenant_id, row.user_id or None, row.key_id or None, row.day, int(row.tokens), int(row.cost))
        for row in rows
    ]


def spent(
    session: Session, tenant: str, first: str, last: str, *, user: str | None = None, key: str | None = None
) -> tuple[int, int]:
    """Tokens and picodollars that were booked on these days, of one user or with one key if told."""
    wanted = {name: value for name, value in (("user", user), ("key", key)) if value is not None}
    query = SPENT + "".join(f" AND {name}_id = :{name}" for name in wanted)
    row = session.execute(text(query), {"tenant": tenant, "first": first, "last": last, **wanted}).one()
    return int(row.tokens), int(row.cost)


def recent(session: Session, since: float, but: Container[int] = ()) -> list[Recent]:
    """`but` what these journals booked."""
    found = []
    for page in session.execute(RECENT, {"since": id_at(since)}):
        for call in records.unpack(page.body) if page.journal not in but else ():
            names, started, _, _, read, _, written, _ = records.numbers(call)
            if started >= since:
                tenant, user, key, *_ = records.apart(names)
                found.append(Recent(tenant, user, key, started, read + written))
    return sorted(found, key=lambda each: each.started)


# -- single calls


def calls(
    session: Session,
    tenant: str,
    wanted: Mapping[str, str],
    model: str | None,
    cursor: str | None,
    count: int,
    since: float = 0.0,
) -> tuple[list[Entry], str | None]:
    """Those whose fields are as wanted (empty: not told), newest first, and where to go on. There may be more when the
    list is short: so many calls were looked through. Of what was booked before `since` nothing."""
    found: list[Entry] = []
    page, skipped = _place(cursor)
    scanned = 0
    names = [wanted.get("user_id"), wanted.get("key_id"), model]
    for row in _pages(session, tenant, page, [name for name in names if name], id_at(since)):
        entries = sorted((records.decode(call, row.journal) for call in records.unpack(row.body)), reverse=True)
        first = skipped if row.id == page else 0
        for number, entry in enumerate(entries[first:], first + 1):
            if _is(entry, wanted, model):
                found.append(entry)
            if len(found) == count:
                return found, f"{row.id}.{number}"
        scanned += len(entries)
        if scanned >= SCANNED:
            return found, f"{row.id}.{len(entries)}"
    return found, None


def _place(cursor: str | None) -> tuple[str | None, int]:
    if cursor is None:
        return None, 0
    page, _, skipped = cursor.partition(".")
    return page, int(skipped)


def _pages(session: Session, tenant: str, first: str | None, names: Sequence[str], since: str) -> Iterator[Row[Any]]:
    """Newest first, beginning with one and not before `since`; only those that may be about all of these names."""
    values = {f"name{number}": _like(name) for number, name in enumerate(names)}
    about = "".join(f" AND about LIKE :{name} ESCAPE '!'" for name in values)
    values |= {"tenant": tenant, "since": since, "upto": "use_~" if first is None else first}
    before = "<="
    while rows := session.execute(
        text(
            f"SELECT id, journal, body FROM usage_pages WHERE tenant_id = :tenant AND id >= :since AND "
            f"id {before} :upto{about} ORDER BY id DESC LIMIT {READ}"
        ),
        values,
    ).all():
        yield from rows
        before, values["upto"] = "<", rows[-1].id


def _is(entry: Entry, wanted: Mapping[str, str], model: str | None) -> bool:
    if any((getattr(entry, name) or "") != value for name, value in wanted.items()):
        return False
    return model is None or model in (entry.model, f"{entry.provider}/{entry.model}")


# -- erasing


def erase(session: Session, user_id: str) -> None:
    """Keep the numbers and no link to the person."""
    if not user_id:
        raise ValueError("nobody cannot be erased")
    for page in session.execute(ABOUT, {"about": f"%\x1f{_like(user_id)[1:]}"}).all():
        kept = [records.nameless(call, (user_id,)) for call in records.unpack(page.body)]
        about = {_who(call) for call in kept}
        session.execute(REWRITE, {"id": page.id, "about": _about(about), "body": records.pack(kept)})
    session.execute(FORGET_DAYS, {"user": user_id})
    session.execute(DROP_DAYS, {"user": user_id})


def _who(call: bytes) -> tuple[str, str, str]:
    _, user, key, _, provider, model = records.apart(records.numbers(call)[0])
    return user or "", key or "", f"{provider}/{model}"


def erase_tenant(session: Session, scope: Scope) -> None:
    session.execute(ERASE_CALLS, {"tenant": scope.tenant})
    session.execute(ERASE_DAYS, {"tenant": scope.tenant})


def tidy(session: Session, before: float) -> int:
    """Remove calls booked before that, at most so many as are tidied at a time; returns how many. The sums stay."""
    pages = session.execute(OLD, {"before": id_at(before)}).all()
    if pages:
        session.execute(TIDY, {"last": pages[-1].id})
    return sum(int(page.calls) for page in pages)
