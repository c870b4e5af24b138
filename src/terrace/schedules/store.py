"""Rows of schedules and runs. Functions of a session: they run inside `Database.read` or `write`."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, or_, update
from sqlmodel import Session, col, select

from terrace.accounts.tables import TenantRow
from terrace.errors import Conflict, Missing
from terrace.jobs.base import FINAL
from terrace.jobs.tables import JobRow
from terrace.schedules.base import Run, RunState, Schedule
from terrace.schedules.tables import RunRow, ScheduleRow
from terrace.schedules.timing import Timing
from terrace.schedules.words import sentence
from terrace.types import Scope, moment, new_id

AT_ONCE = 100  # due schedules and ended runs seen at a time


def get(session: Session, scope: Scope, schedule_id: str) -> ScheduleRow:
    query = select(ScheduleRow).where(ScheduleRow.tenant_id == scope.tenant, ScheduleRow.id == schedule_id)
    if (row := session.exec(query).one_or_none()) is None:
        raise Missing("There is no such schedule.", code="no_such_schedule")
    return row


def count(session: Session, scope: Scope) -> int:
    return session.exec(
        select(func.count()).select_from(ScheduleRow).where(ScheduleRow.tenant_id == scope.tenant)
    ).one()


def named(session: Session, scope: Scope, name: str, but: str = "") -> bool:
    """Whether another schedule than `but` is called so."""
    query = select(ScheduleRow.id).where(
        ScheduleRow.tenant_id == scope.tenant, ScheduleRow.name_key == name.casefold(), ScheduleRow.id != but
    )
    return session.exec(query).first() is not None


def check_name(session: Session, scope: Scope, name: str, but: str = "") -> None:
    """Raises Conflict when another schedule is called so."""
    if named(session, scope, name, but):
        raise Conflict(f"There is a schedule called {name!r} already.", code="schedule_exists")


def page(session: Session, scope: Scope, limit: int, cursor: str | None) -> list[Schedule]:
    """Newest first."""
    query = select(ScheduleRow).where(ScheduleRow.tenant_id == scope.tenant)
    if cursor is not None:
        query = query.where(ScheduleRow.id < cursor)
    return shown(session, scope, session.exec(query.order_by(col(ScheduleRow.id).desc()).limit(limit)).all())


def shown(session: Session, scope: Scope, rows: Sequence[ScheduleRow]) -> list[Schedule]:
    query = select(RunRow).where(
        RunRow.tenant_id == scope.tenant, col(RunRow.id).in_([row.last_run for row in rows if row.last_run])
    )
    last = {run.id: run for run in shown_runs(session, session.exec(query).all())}
    return [_shown(row, last.get(row.last_run or "")) for row in rows]


def timing_of(row: ScheduleRow) -> Timing:
    return Timing(row.cron, row.every, row.timezone)


def _shown(row: ScheduleRow, last: Run | None) -> Schedule:
    return Schedule(
        id=row.id,
        name=row.name,
        action=row.action,
        payload=row.payload,
        cron=row.cron,
        every=row.every,
        timezone=row.timezone,
        sentence=sentence(timing_of(row)),
        enabled=row.enabled,
        problem=row.problem,
        built_in=row.built_in,
        next_at=None if row.next_at is None else moment(row.next_at),
        last_run=last,
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
    )


def remove(session: Session, scope: Scope, schedule_id: str) -> None:
    session.execute(delete(RunRow).where(col(RunRow.tenant_id) == scope.tenant, col(RunRow.schedule_id) == schedule_id))
    session.execute(
        delete(ScheduleRow).where(col(ScheduleRow.tenant_id) == scope.tenant, col(ScheduleRow.id) == schedule_id)
    )


# -- runs


def run_page(session: Session, scope: Scope, schedule_id: str, limit: int, cursor: str | None) -> list[Run]:
    """Newest first."""
    get(session, scope, schedule_id)
    query = select(RunRow).where(RunRow.tenant_id == scope.tenant, RunRow.schedule_id == schedule_id)
    if cursor is not None:
        query = query.where(RunRow.id < cursor)
    return shown_runs(session, session.exec(query.order_by(col(RunRow.id).desc()).limit(limit)).all())


def shown_runs(session: Session, rows: Sequence[RunRow]) -> list[Run]:
    """As they are this moment: what the runner has not written down yet is read off the jobs."""
    open_ = [row.job_id for row in rows if row.state == "running" and row.job_id]
    jobs = {job.id: job for job in session.exec(select(JobRow).where(col(JobRow.id).in_(open_)))}
    return [_shown_run(row, Ended.of(jobs.get(row.job_id or "")) if row.state == "running" else None) for row in rows]


def _shown_run(row: RunRow, ended: "Ended | None") -> Run:
    state: RunState = row.state  # type: ignore[assignment]
    finished_at, note = row.finished_at, row.note
    if ended is not None:
        state, note, finished_at = ended.state, ended.note, ended.at if ended.at is not None else row.started_at
    return Run(
        id=row.id,
        due_at=moment(row.due_at),
        started_at=moment(row.started_at),
        finished_at=None if finished_at is None else moment(finished_at),
        state=state,
        job_id=row.job_id,
        note=note,
        by_hand=row.by_hand,
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run's job ended, and when where that is known."""

    state: RunState
    note: str
    at: float | None

    @classmethod
    def of(cls, job: JobRow | None) -> "Ended | None":
        """None while it goes on."""
        if job is None:
            return cls("cancelled", "Its job was removed before its end was noted.", None)
        if job.state not in FINAL:
            return None
        import msgspec

        message = msgspec.json.decode(job.error).get("message", "") if job.error else ""
        return cls(job.state, message[:1000], job.finished_at)  # type: ignore[arg-type]


def add_run(session: Session, schedule: ScheduleRow, run: RunRow, keep: int) -> None:
    """Write it down, and forget the oldest; one that goes on stays."""
    session.add(run)
    session.flush()
    schedule.last_run = run.id
    mine = (col(RunRow.tenant_id) == schedule.tenant_id, col(RunRow.schedule_id) == schedule.id)
    oldest = session.exec(select(RunRow.id).where(*mine).order_by(col(RunRow.id).desc()).offset(keep - 1).limit(1))
    if (edge := oldest.first()) is not None:
        session.execute(delete(RunRow).where(*mine, col(RunRow.id) < edge, col(RunRow.state) != "running"))


def new_run(schedule: ScheduleRow, due: float, at: float, *, by_hand: bool = False) -> RunRow:
    return RunRow(
        id=new_id("run"), tenant_id=schedule.tenant_id, schedule_id=schedule.id, due_at=due, started_at=at,
        state="running", by_hand=by_hand,
    )  # fmt: skip


def going(session: Session, schedule: ScheduleRow) -> str | None:
    """The job of a run that has not ended."""
    query = (
        select(JobRow.id)
        .join(RunRow, col(RunRow.job_id) == JobRow.id)
        .where(
            RunRow.tenant_id == schedule.tenant_id,
            RunRow.schedule_id == schedule.id,
            RunRow.state == "running",
            col(JobRow.state).not_in(FINAL),
        )
    )
    return session.exec(query.limit(1)).first()


# -- for the runner, over all tenants


@dataclass(frozen=True, slots=True)
class Glance:
    due: list[ScheduleRow]
    ended: bool  # there are runs whose job has ended
    next_at: float | None


def glance(session: Session, at: float) -> Glance:
    query = select(ScheduleRow).where(col(ScheduleRow.next_at) <= at).order_by(col(ScheduleRow.next_at)).limit(AT_ONCE)
    following = select(func.min(ScheduleRow.next_at)).where(col(ScheduleRow.next_at) > at)
    return Glance(list(session.exec(query)), bool(_ended(session, 1)), session.exec(following).one())


def _ended(session: Session, limit: int) -> list[tuple[RunRow, JobRow | None]]:
    query = (
        select(RunRow, JobRow)
        .join(JobRow, col(JobRow.id) == RunRow.job_id, isouter=True)
        .where(RunRow.state == "running", or_(col(JobRow.id).is_(None), col(JobRow.state).in_(FINAL)))
        .limit(limit)
    )
    return [(run, job) for run, job in session.exec(query)]


def settle(session: Session, at: float) -> list[RunRow]:
    """Write down how jobs ended; returns the runs that failed."""
    failed = []
    for run, job in _ended(session, AT_ONCE):
        ended = Ended.of(job)
        assert ended is not None
        run.state, run.note, run.finished_at = ended.state, ended.note, ended.at if ended.at is not None else at
        session.add(run)
        if run.state == "failed":
            failed.append(run)
    return failed


def claim(session: Session, seen: ScheduleRow, next_at: float | None) -> ScheduleRow | None:
    """Move it on from the due time that was seen; None when somebody else was quicker."""
    moved = session.execute(
        update(ScheduleRow)
        .where(
            col(ScheduleRow.id) == seen.id,
            col(ScheduleRow.next_at) == seen.next_at,
            col(ScheduleRow.updated_at) == seen.updated_at,
        )
        .values(next_at=next_at)
    )
    if not moved.rowcount:  # type: ignore[attr-defined]
        return None
    return session.exec(select(ScheduleRow).where(ScheduleRow.id == seen.id)).one()


def closed(session: Session, tenant: str) -> bool:
    """Nobody of the tenant is let in; nothing goes on for it either."""
    return session.exec(select(TenantRow.disabled_at).where(TenantRow.id == tenant)).first() is not None
