"""What a worker looks at before it takes anything: who waits, who runs, what is due, what shall stop.

On PostgreSQL each statement is a journey to the server and back, and a busy interpreter may be late for each of them:
so there all of it is asked at once.
"""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlmodel import Session

from terrace.jobs.base import Lane
from terrace.jobs.statements import is_postgresql
from terrace.storage.database import driver_of
from terrace.types import now

LANES: tuple[Lane, ...] = ("io", "cpu")
CLAIM_LOCK = 7_308_339_936_013_017_185  # whoever claims on PostgreSQL holds it
CLAIM_SECONDS = 5  # a process stopped amid a claim loses the lock after so long

NEXT_DUE = text("SELECT run_at FROM jobs WHERE state = 'waiting' AND run_at IS NOT NULL ORDER BY run_at LIMIT 1")
QUEUED = text("SELECT 1 FROM jobs WHERE state = 'queued' AND lane = :lane LIMIT 1")
TENANTS = text(
    "WITH RECURSIVE waiting(tenant) AS ("
    "SELECT (SELECT tenant_id FROM jobs WHERE state = 'queued' AND lane = :lane ORDER BY tenant_id LIMIT 1) "
    "UNION ALL SELECT (SELECT tenant_id FROM jobs WHERE state = 'queued' AND lane = :lane "
    "AND tenant_id > waiting.tenant ORDER BY tenant_id LIMIT 1) FROM waiting WHERE waiting.tenant IS NOT NULL) "
    "SELECT tenant FROM waiting WHERE tenant IS NOT NULL"
)
RUNNING = text("SELECT tenant_id, COUNT(*) AS n FROM jobs WHERE state = 'running' GROUP BY tenant_id")
CANCELLING = text("SELECT id FROM jobs WHERE state = 'running' AND worker_id = :worker AND cancel_requested")

# One claim at a time, so that what runs is counted right; and no plan from before the queue was full.
ALONE = (
    f"SELECT pg_advisory_xact_lock({CLAIM_LOCK}), set_config('enable_seqscan', 'off', true), "
    f"set_config('idle_in_transaction_session_timeout', '{CLAIM_SECONDS}s', true)"
)
_BY_LANE = ", ".join(
    f"CASE WHEN '{lane}' = ANY(%(lanes)s) THEN ARRAY({TENANTS.text.replace(':lane', repr(lane))}) ELSE '{{}}' END"
    for lane in LANES
)
OUTLOOK = (
    f"SELECT ({NEXT_DUE.text}), ARRAY({CANCELLING.text.replace(':worker', '%(worker)s')}), "
    f"(SELECT COALESCE(json_object_agg(tenant_id, n), '{{}}') FROM ({RUNNING.text}) AS busy), {_BY_LANE}"
)
GLANCE = text(
    f"SELECT ({NEXT_DUE.text}) AS due, ARRAY({CANCELLING.text}) AS cancelling, "
    + ", ".join(f"EXISTS({QUEUED.text.replace(':lane', repr(lane))}) AS {lane}" for lane in LANES)
)


class Outlook(NamedTuple):
    due: float | None  # when the next delayed job may run
    cancelling: list[str]  # jobs of this worker that shall stop
    running: dict[str, int]  # by tenant
    tenants: dict[Lane, set[str]]  # who has queued jobs, of the lanes asked about


def alone(session: Session) -> None:
    """From now to the end of the transaction nobody else claims."""
    if is_postgresql(session):
        driver_of(session).execute(ALONE)


def alone_with_outlook(session: Session, worker: str, lanes: Collection[Lane]) -> Outlook:
    """What there is once nobody else claims."""
    if not is_postgresql(session):
        tenants = {lane: set(session.execute(TENANTS, {"lane": lane}).scalars()) for lane in lanes}
        running = {row.tenant_id: row.n for row in session.execute(RUNNING)} if any(tenants.values()) else {}
        return Outlook(next_due(session), cancelling(session, worker), running, tenants)
    # Two statements, for the second must see what was there when the first had its lock.
    given = {"worker": worker, "lanes": list(lanes)}
    due, stopping, running, *queued = driver_of(session).cursor().together((ALONE, None), (OUTLOOK, given)).fetchone()
    return Outlook(due, stopping, running, {lane: set(found) for lane, found in zip(LANES, queued, strict=True)})


def glance(session: Session, worker: str, lanes: Collection[Lane]) -> tuple[bool, float | None, list[str]]:
    """Whether a claim for these lanes may find anything, when the next delayed job is due, and what of ours shall stop.

    Cheaper than a claim that finds nothing.
    """
    if not is_postgresql(session):
        return waiting(session, lanes), next_due(session), cancelling(session, worker)
    row: Any = session.execute(GLANCE, {"worker": worker}).one()
    found = is_over(row.due) or any(getattr(row, lane) for lane in lanes)
    return found, row.due, row.cancelling


def waiting(session: Session, lanes: Iterable[Lane]) -> bool:
    """Whether a claim for these lanes may find anything: cheaper than to try."""
    return is_over(next_due(session)) or any(session.execute(QUEUED, {"lane": lane}).first() for lane in lanes)


def is_over(due: float | None) -> bool:
    return due is not None and due <= now()


def next_due(session: Session) -> float | None:
    """When the next delayed job may run."""
    due = session.execute(NEXT_DUE).scalar()
    return None if due is None else float(due)


def cancelling(session: Session, worker: str) -> list[str]:
    """This worker's jobs that shall stop."""
    return list(session.execute(CANCELLING, {"worker": worker}).scalars())
