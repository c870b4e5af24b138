"""Rows of the analysis room: functions of a transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import ColumnElement, delete, func
from sqlmodel import Session, col, select

from terrace.accounts.limits.base import Subject
from terrace.analysis.base import Analysis, AnalysisState, Part, Way
from terrace.analysis.tables import AnalysisRow, PageRow, StepRow
from terrace.errors import Conflict, Missing
from terrace.jobs.base import Job
from terrace.knowledge.store import trash
from terrace.types import Scope, moment, now

OVER = ("succeeded", "failed", "cancelled")


def own(scope: Scope) -> tuple[ColumnElement[bool], ...]:
    """An analysis is its owner's alone."""
    user = col(AnalysisRow.user_id)
    return col(AnalysisRow.tenant_id) == scope.tenant, user.is_(None) if scope.user is None else user == scope.user


def get(session: Session, scope: Scope, analysis_id: str) -> AnalysisRow:
    """Raises Missing."""
    row = session.exec(select(AnalysisRow).where(AnalysisRow.id == analysis_id, *own(scope))).one_or_none()
    if row is None:
        raise Missing("No such analysis, or not yours.", code="analysis_missing")
    return row


def page(session: Session, scope: Scope, state: str | None, limit: int, before: str | None) -> list[Analysis]:
    """Newest first, without their results."""
    query = select(AnalysisRow).where(*own(scope))
    if state is not None:
        query = query.where(AnalysisRow.state == state)
    if before is not None:
        query = query.where(col(AnalysisRow.id) < before)
    rows = session.exec(query.order_by(col(AnalysisRow.id).desc()).limit(limit)).all()
    return [shown(row, abridged=True) for row in rows]


def shown(row: AnalysisRow, *, abridged: bool = False) -> Analysis:
    return Analysis(
        id=row.id,
        name=row.name,
        type=row.type,
        media_type=row.media_type,
        bytes=row.bytes,
        state=cast(AnalysisState, row.state),
        pages=row.pages,
        pages_done=row.pages_done,
        way=cast("Way | None", row.way),
        why=row.why,
        model=row.model,
        result=None if abridged else row.result,
        cost=row.cost,
        usage=row.usage,
        error=row.error,
        job_id=row.job_id,
        created_at=moment(row.created_at),
        finished_at=None if row.finished_at is None else moment(row.finished_at),
    )


def request_key(scope: Scope, key: str | None) -> str | None:
    """An idempotency key is its sender's own; others may use the same."""
    return f"{scope.user or ''}/{key}" if key else None


def asked(session: Session, scope: Scope, key: str | None) -> AnalysisRow | None:
    """What this key asked for before."""
    if key is None:
        return None
    mine = (AnalysisRow.tenant_id == scope.tenant, AnalysisRow.request_key == request_key(scope, key))
    return session.exec(select(AnalysisRow).where(*mine)).one_or_none()


def stored(session: Session, subject: Subject) -> int:
    """Bytes of files that a tenant has here, or a user or key of it."""
    query = select(func.coalesce(func.sum(col(AnalysisRow.bytes)), 0)).where(AnalysisRow.tenant_id == subject.tenant)
    if subject.kind != "tenant":
        owner = AnalysisRow.user_id if subject.kind == "user" else AnalysisRow.key_id
        query = query.where(col(owner) == subject.id)
    return int(session.exec(query).one())


def remove(session: Session, rows: Sequence[AnalysisRow]) -> list[str]:
    """With pages, answers and files; the jobs that may still be at work on them."""
    jobs = []
    for row in rows:
        blobs = session.exec(select(PageRow.blob).where(PageRow.analysis_id == row.id, col(PageRow.blob).is_not(None)))
        trash(session, Scope(row.tenant_id), row.blob, *blobs.all())
        for table in (PageRow, StepRow):
            session.execute(delete(table).where(col(table.analysis_id) == row.id))
        if row.job_id is not None and row.state not in OVER:
            jobs.append(row.job_id)
        session.delete(row)
    session.flush()
    return jobs


# -- what the job writes


def fenced(session: Session, scope: Scope, analysis_id: str, job_id: str) -> AnalysisRow:
    """The analysis, if this job may write it. Raises Missing (deleted) or Conflict (superseded)."""
    mine = (AnalysisRow.tenant_id == scope.tenant, AnalysisRow.id == analysis_id)
    row = session.exec(select(AnalysisRow).where(*mine)).one_or_none()
    if row is None:
        raise Missing("This analysis was deleted.", code="analysis_missing")
    if row.job_id != job_id:
        raise Conflict("A newer job works on this analysis.", code="superseded")
    row.updated_at = now()
    return row


def pages(session: Session, analysis_id: str) -> list[PageRow]:
    query = select(PageRow).where(PageRow.analysis_id == analysis_id).order_by(col(PageRow.number))
    return list(session.exec(query).all())


def steps(session: Session, analysis_id: str) -> dict[str, StepRow]:
    return {row.key: row for row in session.exec(select(StepRow).where(StepRow.analysis_id == analysis_id)).all()}


def add_pages(session: Session, row: AnalysisRow, parts: Iterable[Part]) -> None:
    for number, part in enumerate(parts, 1):
        ready = part.kind == "text"
        session.add(
            PageRow(
                analysis_id=row.id, number=number, tenant_id=row.tenant_id, kind=part.kind, label=part.label,
                source=part.source, text=part.text, state="ready" if ready else "waiting",
            )
        )  # fmt: skip
    session.flush()


def keep_page(session: Session, analysis_id: str, number: int, fields: dict[str, Any]) -> None:
    """What came of drawing or reading a page."""
    page = session.exec(select(PageRow).where(PageRow.analysis_id == analysis_id, PageRow.number == number)).one()
    for name, value in fields.items():
        setattr(page, name, value)
    page.state = "ready" if page.error is None else "failed"


def keep_step(session: Session, row: AnalysisRow, key: str, **fields: Any) -> StepRow:
    step = session.get(StepRow, (row.id, key)) or StepRow(analysis_id=row.id, key=key, tenant_id=row.tenant_id)
    for name, value in fields.items():
        setattr(step, name, value)
    session.add(step)
    session.flush()
    return step


def rewind(session: Session, row: AnalysisRow) -> None:
    """It is tried again: what was answered stays, what failed gets its chance. Without any answer the way is chosen
    anew: a better model may be there by now."""
    session.execute(delete(StepRow).where(col(StepRow.analysis_id) == row.id, col(StepRow.answer).is_(None)))
    if session.exec(select(StepRow.key).where(StepRow.analysis_id == row.id).limit(1)).first() is None:
        row.way, row.why, row.model = None, "", None
    for each in pages(session, row.id):
        if each.error is not None or row.way is None:
            each.error, each.note = None, ""
            if each.kind != "text":
                each.state, each.text, each.read_by = "waiting", "", None
    row.state, row.error, row.finished_at, row.updated_at = "queued", None, None, now()


def why(job: Job) -> dict[str, Any]:
    if job.error is not None and job.state == "failed":
        return asdict(job.error)
    return {"kind": "conflict", "code": "cancelled", "message": "This analysis was cancelled. Retry it to have it."}
