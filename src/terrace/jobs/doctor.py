"""Finds jobs that are stuck, orphaned or half-ended, and mends them. Other rooms report in the same words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import Session

from terrace.jobs import endings
from terrace.jobs.journal import Journal
from terrace.jobs.service import JobService
from terrace.types import Finding, Scope, now

GRACE_SECONDS = 60.0  # a worker takes stuck work back by itself sooner than this
LIMIT = 1000  # findings of one kind

STUCK = text(f"SELECT id FROM jobs WHERE state = 'running' AND lease_until < :before LIMIT {LIMIT}")
LEASELESS = text(f"SELECT id FROM jobs WHERE state = 'running' AND lease_until IS NULL LIMIT {LIMIT}")
UNENDED = text(
    "SELECT parent.id FROM jobs AS parent WHERE parent.state = 'waiting' AND parent.run_at IS NULL "
    "AND parent.updated_at < :before AND NOT EXISTS (SELECT 1 FROM jobs AS child WHERE child.parent_id = parent.id "
    f"AND child.state IN ('queued', 'waiting', 'running')) LIMIT {LIMIT}"
)
ORPHANED = text(
    "SELECT child.id FROM jobs AS child WHERE child.parent_id IS NOT NULL "
    "AND child.state IN ('queued', 'waiting', 'running') "
    f"AND NOT EXISTS (SELECT 1 FROM jobs AS parent WHERE parent.id = child.parent_id) LIMIT {LIMIT}"
)
ABANDONED = text(
    "SELECT child.id FROM jobs AS child JOIN jobs AS parent ON parent.id = child.parent_id "
    f"WHERE child.state IN ('queued', 'waiting') AND parent.state = 'cancelled' LIMIT {LIMIT}"
)
UNTOLD = text(
    "SELECT id FROM jobs WHERE state IN ('succeeded', 'failed', 'cancelled') AND NOT EXISTS (SELECT 1 FROM job_events "
    "WHERE job_events.tenant_id = jobs.tenant_id AND job_events.job_id = jobs.id "
    f"AND job_events.attempt = jobs.attempt AND job_events.type = 'done') LIMIT {LIMIT}"
)
LOOSE_EVENTS = text(
    "SELECT DISTINCT job_id FROM job_events WHERE NOT EXISTS "
    f"(SELECT 1 FROM jobs WHERE jobs.id = job_events.job_id) LIMIT {LIMIT}"
)
TENANT = text("SELECT tenant_id FROM jobs WHERE id = :id")
DETACH = text("UPDATE jobs SET parent_id = NULL, updated_at = :now WHERE id = :id")
EXPIRE = text("UPDATE jobs SET lease_until = 0 WHERE id = :id AND state = 'running'")
SWEEP_EVENTS = text("DELETE FROM job_events WHERE job_id = :id")


Repair = Callable[[Session, Journal, JobService, str], None]


@dataclass(frozen=True, slots=True)
class _Check:
    code: str
    message: str
    ids: Callable[[Session], Sequence[str]]
    repair: Repair


async def examine(jobs: JobService) -> list[Finding]:
    """What is wrong now; changes nothing."""

    def work(session: Session) -> list[Finding]:
        return [
            Finding("jobs", check.code, check.message, subject, True)
            for check in CHECKS
            for subject in check.ids(session)
        ]

    return await jobs.database.read(work)


async def repair(jobs: JobService) -> list[Finding]:
    """Mend what can be mended, one transaction for each finding; returns what was mended."""
    mended: list[Finding] = []
    for check in CHECKS:
        for subject in await jobs.database.read(check.ids):
            await jobs.database.write(_mend, jobs, check, subject)
            mended.append(Finding("jobs", check.code, check.message, subject, True))
    return mended


def _mend(session: Session, jobs: JobService, check: _Check, subject: str) -> None:
    if subject in check.ids(session):  # it may have righted itself
        check.repair(session, jobs.journal(session), jobs, subject)


def _stuck(session: Session) -> Sequence[str]:
    late = session.execute(STUCK, {"before": now() - GRACE_SECONDS}).scalars().all()
    return [*late, *session.execute(LEASELESS).scalars()]


def _take_back(session: Session, journal: Journal, jobs: JobService, job_id: str) -> None:
    session.execute(EXPIRE, {"id": job_id})
    endings.recover(session, journal, jobs.rules)


def _end_parent(session: Session, journal: Journal, jobs: JobService, job_id: str) -> None:
    endings.advance(session, journal, jobs.rules, [(_tenant(session, job_id), job_id)])


def _detach(session: Session, journal: Journal, jobs: JobService, job_id: str) -> None:
    session.execute(DETACH, {"id": job_id, "now": now()})
    journal.notice.tenants.add(_tenant(session, job_id))


def _cancel(session: Session, journal: Journal, jobs: JobService, job_id: str) -> None:
    endings.cancel(session, journal, jobs.rules, Scope(_tenant(session, job_id)), job_id)


def _tell_end(session: Session, journal: Journal, jobs: JobService, job_id: str) -> None:
    endings.tell_end(session, journal, Scope(_tenant(session, job_id)), job_id)


def _sweep(session: Session, journal: Journal, jobs: JobService, job_id: str) -> None:
    session.execute(SWEEP_EVENTS, {"id": job_id})


def _tenant(session: Session, job_id: str) -> str:
    return str(session.execute(TENANT, {"id": job_id}).scalar_one())


CHECKS = (
    _Check("job_stuck", "It counts as running, but its worker is long silent.", _stuck, _take_back),
    _Check(
        "parent_unended",
        "It waits for its children, and none of them is open any more.",
        lambda session: session.execute(UNENDED, {"before": now() - GRACE_SECONDS}).scalars().all(),
        _end_parent,
    ),
    _Check(
        "child_orphaned",
        "Its parent is gone; it goes on alone.",
        lambda session: session.execute(ORPHANED).scalars().all(),
        _detach,
    ),
    _Check(
        "child_abandoned",
        "Its parent was cancelled, and it was not.",
        lambda session: session.execute(ABANDONED).scalars().all(),
        _cancel,
    ),
    _Check(
        "end_untold",
        "It has ended, but its events do not say so.",
        lambda session: session.execute(UNTOLD).scalars().all(),
        _tell_end,
    ),
    _Check(
        "events_loose",
        "These events belong to a job that is gone.",
        lambda session: session.execute(LOOSE_EVENTS).scalars().all(),
        _sweep,
    ),
)
