"""The meeting place in the database. One question at a time for each tenant, so that what is granted adds up."""

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, text
from sqlmodel import Session

from terrace.accounts.limits.meters import MINUTE
from terrace.accounts.limits.shared import keys
from terrace.accounts.limits.shared.base import Found, Key, Line, Park, Reply, Trip, share_of
from terrace.storage import Database
from terrace.storage.database import own_locks
from terrace.telemetry import store as ledger
from terrace.types import now

SILENT = 10.0  # seconds without a beat, and a process is dead
WANTED_SECONDS = 1.0  # for so long nobody gets slack where somebody goes short
NOBODY = 0

LOCK = text(
    "SELECT pg_advisory_xact_lock(k) FROM (SELECT DISTINCT hashtextextended(t, 5482) AS k "
    "FROM unnest(CAST(:tenants AS text[])) AS t ORDER BY 1) AS wanted"
)
LOCK_SHARED = text(
    "SELECT pg_advisory_xact_lock_shared(k) FROM (SELECT DISTINCT hashtextextended(t, 5482) AS k "
    "FROM unnest(CAST(:tenants AS text[])) AS t ORDER BY 1) AS wanted"
)
CLOCK = text("SELECT extract(epoch FROM clock_timestamp())")
WHERE = "WHERE tenant_id IN :tenants AND key IN :keys"


def _many(statement: str, *names: str) -> Any:
    return text(statement).bindparams(*(bindparam(name, expanding=True) for name in names))


POOLS = _many(f"SELECT tenant_id, key, booked, wanted FROM limit_pools {WHERE}", "tenants", "keys")
MAKE = text(
    "INSERT INTO limit_pools (tenant_id, key, booked, wanted, ends) VALUES (:tenant, :key, :booked, 0, :ends) "
    "ON CONFLICT (tenant_id, key) DO NOTHING"
)
OTHERS = _many(
    f"SELECT tenant_id, key, SUM(held) AS held, SUM(idle) AS idle FROM limit_shares {WHERE} AND holder <> :me "
    "AND (until IS NULL OR until > :at) GROUP BY tenant_id, key", "tenants", "keys",
)  # fmt: skip
SHARE = text(
    "INSERT INTO limit_shares (tenant_id, key, holder, held, idle, until) "
    "VALUES (:tenant, :key, :holder, :held, :idle, :until) ON CONFLICT (tenant_id, key, holder) "
    "DO UPDATE SET held = excluded.held, idle = excluded.idle, until = excluded.until"
)
MORE = text(
    "INSERT INTO limit_shares (tenant_id, key, holder, held, idle) VALUES (:tenant, :key, :holder, :amount, 0) "
    "ON CONFLICT (tenant_id, key, holder) DO UPDATE SET held = limit_shares.held + excluded.held"
)
EMPTY = text("DELETE FROM limit_shares WHERE tenant_id = :tenant AND key = :key AND holder = :holder")
SHORT = text("UPDATE limit_pools SET wanted = :until WHERE tenant_id = :tenant AND key = :key")
JOBS = _many("SELECT job_id, tenant_id FROM limit_holds WHERE job_id IN :jobs", "jobs")
HOLDERS = _many("SELECT job_id, holder FROM limit_holds WHERE job_id IN :jobs", "jobs")
END_HOLDS = _many("DELETE FROM limit_holds WHERE job_id IN :jobs", "jobs")
HELD = _many("SELECT tenant_id, key, holder, held FROM limit_shares WHERE holder IN :holders", "holders")
DROP = _many("DELETE FROM limit_shares WHERE holder IN :holders", "holders")
HOLD = text("INSERT INTO limit_holds (job_id, tenant_id, holder, until) VALUES (:job, :tenant, :holder, :until)")
ALIVE = text("SELECT id FROM limit_members WHERE beat >= :since")
ADD = text("UPDATE limit_pools SET booked = booked + :amount WHERE tenant_id = :tenant AND key = :key ")
LESS = text(
    "UPDATE limit_shares SET held = CASE WHEN held > :amount THEN held - :amount ELSE 0 END "
    "WHERE tenant_id = :tenant AND key = :key AND holder = :holder"
)


class DatabaseStore:
    """`accounts.limits.shared.base.Store` in the database itself."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def join(self, holder: int, lines: Sequence[Line]) -> None:
        """Say what we hold, and that we hold nothing else."""
        await self._database.write(join, holder, lines)

    async def trade(self, trip: Trip) -> Reply:
        return await self._database.write(trade, trip)

    async def leave(self, holder: int, lines: Sequence[Line], minutes: Sequence[Line]) -> None:
        await self._database.write(leave, holder, lines, minutes)


# -- in a transaction


def moment(session: Session) -> float:
    """The database's clock: it is one for all who meet there."""
    return float(session.execute(CLOCK).scalar_one()) if _is_postgresql(session) else now()


def lock(session: Session, tenants: Collection[str], *, shared: bool = False) -> None:
    """Alone with the limits of these until the end of the transaction, or with others who only add. SQLite has one
    writer anyway."""
    if tenants and _is_postgresql(session):
        session.execute(LOCK_SHARED if shared else LOCK, {"tenants": sorted(tenants)})


@own_locks
def join(session: Session, holder: int, lines: Sequence[Line]) -> None:
    lock(session, {line.key[0] for line in lines})
    session.execute(DROP, {"holders": [holder]})
    trade(session, Trip(holder, [replace(line, least=0, wish=0, slack=0) for line in lines]), moved=True)


@own_locks
def trade(session: Session, trip: Trip, *, moved: bool = False) -> Reply:
    """`moved`: we have just come here, as all the others do."""
    at = moment(session)
    jobs = [*trip.claims, *trip.releases]
    known = {row.job_id: row.tenant_id for row in session.execute(JOBS, {"jobs": jobs})} if jobs else {}
    parked = {tenant for park in trip.parks for tenant, _ in park.amounts}
    lock(session, {line.key[0] for line in trip.lines} | parked | set(known.values()))
    claimed = _end_holds(session, trip, known)
    for park in trip.parks:
        _park(session, park, at)
    found = _lines(session, trip, at, moved=moved) if trip.lines else {}
    gained = [(key, amount) for amounts in claimed.values() for key, amount in amounts.items()]
    _each(session, MORE, [_at(key, holder=trip.holder, amount=amount) for key, amount in gained])
    return Reply(found, claimed)


@own_locks
def leave(session: Session, holder: int, lines: Sequence[Line], minutes: Sequence[Line]) -> None:
    lock(session, {line.key[0] for line in (*lines, *minutes)})
    session.execute(DROP, {"holders": [holder]})
    kept = [_at(line.key, holder=holder, held=line.held, idle=0, until=None) for line in lines if line.held]
    _each(session, SHARE, kept)
    _ghosts(session, [(line.key, line.held) for line in minutes], moment(session) + MINUTE)


def keep(session: Session, holder: int, totals: Mapping[Key, int], minutes: Mapping[Key, int]) -> None:
    """What a dead process held elsewhere, from now on here too."""
    lock(session, {tenant for tenant, _ in (*totals, *minutes)})
    session.execute(DROP, {"holders": [holder]})
    rows = [_at(key, holder=holder, held=held, idle=0, until=None) for key, held in sorted(totals.items()) if held]
    _each(session, SHARE, rows)
    _ghosts(session, minutes.items(), moment(session) + MINUTE)


def held_by(session: Session, holder: int) -> dict[Key, int]:
    rows = session.execute(HELD, {"holders": [holder]})
    return {(row.tenant_id, row.key): int(row.held) for row in rows if row.held}


def booked_of(session: Session, wanted: Sequence[Key]) -> dict[Key, int]:
    """Of those that there are."""
    return {key: booked for some in _pieces(wanted) for key, booked in _existing(session, some)}


def pools(session: Session, wanted: Collection[Key], at: float, *, moved: bool = False) -> dict[Key, tuple[int, bool]]:
    """What is booked of each, and whether somebody goes short of it. The tenants must be locked. Of what is new here
    the last minute counts too, as in `recently`."""
    where = _where(wanted)
    found = {(row.tenant_id, row.key): (int(row.booked), row.wanted > at) for row in session.execute(POOLS, where)}
    missing = [key for key in wanted if key not in found]
    made = {key: _booked(session, key) for key in missing}
    _each(session, MAKE, [_at(key, booked=booked, ends=ends) for key, (booked, ends) in made.items()])
    _ghosts(session, recently(session, missing, at, moved=moved).items(), at + MINUTE)
    return found | {key: (booked, False) for key, (booked, _) in made.items()}


def add(session: Session, amounts: Mapping[Key, int], holder: int) -> dict[Key, int]:
    """What was booked just now leaves its holder's share, in the transaction that books it; what is booked now of the
    limits that there are."""
    known = sorted(booked_of(session, sorted(amounts)))
    _each(session, ADD, [_at(key, amount=amounts[key]) for key in known])
    _each(session, LESS, [_at(key, amount=amounts[key], holder=holder) for key in known])
    return booked_of(session, known)  # read only now: others may have added until ours was, and nobody can any more


def bury(session: Session, holder: int, *, booked: bool, until: float) -> None:
    """A process is dead. Calls it may have been making go on counting until they are `booked`; what it used of a
    minute counts for that minute; calls under way are none of its any more."""
    rows = session.execute(HELD, {"holders": [holder]}).all()
    names = {row.key: keys.named(row.key)[1] for row in rows}
    minutes = [((row.tenant_id, row.key), int(row.held)) for row in rows if names[row.key].endswith("minute")]
    gone = [row for row in rows if booked or not keys.named(row.key)[2]]
    _each(session, EMPTY, [_at((row.tenant_id, row.key), holder=holder) for row in gone])
    _ghosts(session, minutes, until)


def _lines(session: Session, trip: Trip, at: float, *, moved: bool) -> dict[Key, Found]:
    wanted = [line.key for line in trip.lines]
    booked = pools(session, wanted, at, moved=moved)
    where = {**_where(wanted), "me": trip.holder, "at": at}
    others = {(row.tenant_id, row.key): (int(row.held), int(row.idle)) for row in session.execute(OTHERS, where)}
    found, short = {}, []
    for line in trip.lines:
        (spent, asked), (held, idle) = booked[line.key], others.get(line.key, (0, 0))
        granted = share_of(line, spent, held, wanted=asked)
        if granted < line.wish and idle:
            short.append(line.key)
        over = spent + held + line.held > line.value
        found[line.key] = Found(granted, spent, held, idle, asked or over)
    has = {line.key: line.held + found[line.key].granted for line in trip.lines}
    idle_now = {line.key: line.idle + max(0, found[line.key].granted - line.wish) for line in trip.lines}
    _each(
        session, SHARE,
        [_at(key, holder=trip.holder, held=held, idle=idle_now[key], until=None) for key, held in has.items() if held],
    )  # fmt: skip
    _each(session, EMPTY, [_at(key, holder=trip.holder) for key, held in has.items() if not held])
    _each(session, SHORT, [_at(key, until=at + WANTED_SECONDS) for key in short])
    return found


def _end_holds(session: Session, trip: Trip, known: Mapping[str, str]) -> dict[str, dict[Key, int]]:
    if not known:
        return {}
    rows = session.execute(HOLDERS, {"jobs": list(known)}).all()  # again: they are locked now
    if not rows:
        return {}
    jobs = {row.holder: row.job_id for row in rows}
    held: dict[str, dict[Key, int]] = defaultdict(dict)
    for row in session.execute(HELD, {"holders": list(jobs)}):
        held[jobs[row.holder]][row.tenant_id, row.key] = int(row.held)
    session.execute(DROP, {"holders": list(jobs)})
    session.execute(END_HOLDS, {"jobs": list(jobs.values())})
    return {job: held[job] for job in trip.claims if job in held}


def _park(session: Session, park: Park, at: float) -> None:
    before = [row.holder for row in session.execute(HOLDERS, {"jobs": [park.job]})]
    if before:
        session.execute(DROP, {"holders": before})
        session.execute(END_HOLDS, {"jobs": [park.job]})
    if not park.amounts:
        return
    holder, until = secrets.randbits(62), at + park.seconds
    tenant = next(iter(park.amounts))[0]
    session.execute(HOLD, {"job": park.job, "tenant": tenant, "holder": holder, "until": until})
    _each(
        session, SHARE,
        [_at(key, holder=holder, held=amount, idle=0, until=until) for key, amount in sorted(park.amounts.items())],
    )  # fmt: skip


def _ghosts(session: Session, minutes: Iterable[tuple[Key, int]], until: float) -> None:
    """What somebody who is gone has used of a minute."""
    _each(
        session, SHARE,
        [_at(key, holder=secrets.randbits(62), held=held, idle=0, until=until) for key, held in minutes if held],
    )  # fmt: skip


def _booked(session: Session, key: Key) -> tuple[int, float]:
    """What the ledger knows of it, and when its day or month ends."""
    tenant, name = key
    whose, limit, _ = keys.named(name)
    if (span := keys.span(name)) is None:
        return 0, keys.FAR
    kind, _, id = whose.partition(":")
    first, last, ends = span
    tokens, cost = ledger.spent(session, tenant, first, last, **({kind: id} if id else {}))
    return (tokens if limit == "tokens_per_day" else cost), ends


def recently(session: Session, wanted: Sequence[Key], at: float, *, moved: bool) -> dict[Key, int]:
    """What came in the last minute. Where all have `moved`, those who are there say themselves what they used of it;
    of a limit that is new they don't know."""
    minutes = [key for key in wanted if keys.named(key[1])[1].endswith("minute")]
    if not minutes:
        return {}
    there = set(session.execute(ALIVE, {"since": at - SILENT}).scalars()) if moved else set[int]()
    calls = ledger.recent(session, at - MINUTE, but=there)
    return {key: amount for key in minutes if (amount := sum(keys.part(key, call) for call in calls))}


def _existing(session: Session, wanted: Collection[Key]) -> Iterable[tuple[Key, int]]:
    rows, among = session.execute(POOLS, _where(wanted)), set(wanted)
    return [(key, int(row.booked)) for row in rows if (key := (row.tenant_id, row.key)) in among]


def _pieces(wanted: Sequence[Key], most: int = 1000) -> Iterable[Sequence[Key]]:
    return (wanted[at : at + most] for at in range(0, len(wanted), most))


def _where(wanted: Collection[Key]) -> dict[str, Any]:
    return {"tenants": sorted({tenant for tenant, _ in wanted}), "keys": sorted({key for _, key in wanted})}


def _at(key: Key, **values: object) -> dict[str, object]:
    return {"tenant": key[0], "key": key[1], **values}


def _each(session: Session, statement: Any, rows: Sequence[Mapping[str, object]]) -> None:
    if rows:
        session.connection().execute(statement, list(rows))


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
