"""Which processes count limits, and which of them are dead.

On PostgreSQL a process is alive while its heart beats. On SQLite, where all are on one machine, while it holds the lock
of its journal; who is alone there counts everything by itself and tells nobody, until another one comes.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import delete, text, update
from sqlmodel import Session, col, select

from terrace.accounts.limits.meters import MINUTE
from terrace.accounts.limits.shared import database
from terrace.accounts.limits.shared.database import SILENT
from terrace.accounts.limits.shared.tables import LimitHoldRow, LimitMemberRow, LimitPoolRow, LimitShareRow
from terrace.storage.database import own_locks

BEAT = 2.0  # seconds

Alive = Callable[[int], bool]

# A beat that began before we came to an epoch may end after.
PUT = text(
    "INSERT INTO limit_members (id, beat, alone, epoch) VALUES (:id, :beat, :alone, :epoch) "
    "ON CONFLICT (id) DO UPDATE SET beat = excluded.beat, alone = excluded.alone, "
    "epoch = CASE WHEN excluded.epoch > limit_members.epoch THEN excluded.epoch ELSE limit_members.epoch END"
)


def join(session: Session, me: int, alive: Alive) -> bool:
    """On SQLite. Whether this is the only process; then nothing that others held counts any more."""
    others = [each for each in session.exec(select(LimitMemberRow.id)) if each != me and alive(each)]
    if not others:
        for table in (LimitMemberRow, LimitHoldRow, LimitShareRow, LimitPoolRow):
            session.execute(delete(table))
    session.execute(PUT, {"id": me, "beat": database.moment(session), "alone": not others, "epoch": 0})
    return not others


def others(session: Session, me: int) -> list[tuple[int, bool]]:
    """All the others there are or were, and whether they count alone."""
    rows = session.exec(select(LimitMemberRow).where(LimitMemberRow.id != me))
    return [(row.id, row.alone) for row in rows]


def knock(session: Session, me: int) -> None:
    """Have the others look who there is."""
    here = update(LimitMemberRow).where(col(LimitMemberRow.id) == me)
    session.execute(here.values(beat=database.moment(session)))


def not_alone(session: Session, me: int) -> None:
    session.execute(update(LimitMemberRow).where(col(LimitMemberRow.id) == me).values(alone=False))


@own_locks
def beat(session: Session, me: int, epoch: int) -> list[int]:
    """I am alive; who is not."""
    at = database.moment(session)
    session.execute(PUT, {"id": me, "beat": at, "alone": False, "epoch": epoch})
    silent = select(LimitMemberRow.id).where(LimitMemberRow.beat < at - SILENT, LimitMemberRow.id != me)
    return list(session.exec(silent))


def missing(session: Session, epoch: int) -> tuple[list[int], list[int]]:
    """Who is alive and has not come to this epoch, and who is dead and may have left something."""
    at = database.moment(session)
    rows = session.exec(select(LimitMemberRow)).all()
    late = [row.id for row in rows if row.epoch != epoch and row.beat >= at - SILENT]
    return late, [row.id for row in rows if row.epoch != epoch and row.beat < at - SILENT]


def everybody(session: Session) -> set[int]:
    return set(session.exec(select(LimitMemberRow.id)))


@own_locks
def silent(session: Session, dead: Sequence[int]) -> None:
    """What these held at a time is free again, and what they used of a minute after that minute. Who has nothing left
    that may have been spent is forgotten."""
    at = database.moment(session)
    for holder in dead:
        still = session.exec(
            select(LimitMemberRow.id).where(LimitMemberRow.id == holder, LimitMemberRow.beat < at - SILENT)
        ).first()
        if still is None:
            continue  # it had only been held up
        database.bury(session, holder, booked=False, until=at + MINUTE)
        left = session.exec(select(LimitShareRow.holder).where(LimitShareRow.holder == holder, LimitShareRow.held > 0))
        if left.first() is None:
            forget(session, holder)


def forget(session: Session, holder: int) -> None:
    session.execute(delete(LimitShareRow).where(col(LimitShareRow.holder) == holder))
    session.execute(delete(LimitMemberRow).where(col(LimitMemberRow.id) == holder))


@own_locks
def tidy(session: Session) -> None:
    """What has lapsed, and days and months that are over."""
    at = database.moment(session)
    session.execute(delete(LimitHoldRow).where(col(LimitHoldRow.until) <= at))
    session.execute(delete(LimitShareRow).where(col(LimitShareRow.until) <= at))
    old = select(LimitPoolRow.tenant_id, LimitPoolRow.key).where(LimitPoolRow.ends < at - 86_400)
    for tenant, key in session.exec(old).all():
        for table in (LimitShareRow, LimitPoolRow):
            session.execute(delete(table).where(col(table.tenant_id) == tenant, col(table.key) == key))
