"""What can be wrong with a document's own row, as conditions of a query: the doctor reads all such rows, a check
counts them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, or_
from sqlmodel import Session, col, select

from terrace.jobs.base import FINAL, Jobs
from terrace.jobs.tables import JobRow
from terrace.knowledge import store, tasks
from terrace.knowledge.tables import ChunkRow, DocumentRow
from terrace.types import Scope

PRIORITY = -10  # what somebody waits for goes first


@dataclass(frozen=True, slots=True)
class Ailment:
    """`message` has places for {name} and {state}; `job` is the kind that mends it."""

    code: str
    message: str
    condition: ColumnElement[bool]
    job: str = tasks.INGEST


def stuck() -> Ailment:
    """Said to be in progress, but no job is at work on them."""
    alive = select(JobRow.id).where(col(JobRow.state).not_in(FINAL))
    lost = or_(col(DocumentRow.job_id).is_(None), col(DocumentRow.job_id).not_in(alive))
    return Ailment(
        "document_stuck",
        "{name!r} is said to be {state}, but no job is at work on it.",
        and_(col(DocumentRow.state).in_(store.IN_PROGRESS), lost),
    )


def hollow() -> Ailment:
    """Ready, yet without the passages it should have."""
    kept = (
        select(func.count())
        .where(ChunkRow.tenant_id == DocumentRow.tenant_id, ChunkRow.document_id == DocumentRow.id)
        .correlate(DocumentRow)
        .scalar_subquery()
    )
    return Ailment(
        "document_hollow",
        "{name!r} is ready, but its passages are not all there.",
        and_(col(DocumentRow.state) == "ready", col(DocumentRow.chunk_count) != kept),
    )


def unembedded(model: str) -> Ailment:
    """Ready, but not by the meaning that the present model gives."""
    other = or_(col(DocumentRow.embedding).is_(None), col(DocumentRow.embedding) != model)
    return Ailment(
        "vectors_missing",
        "{name!r} is found by words only: it has no vectors of " + model.replace("{", "{{").replace("}", "}}") + ".",
        and_(col(DocumentRow.state) == "ready", col(DocumentRow.chunk_count) > 0, other),
        tasks.EMBED,
    )


def failed() -> Ailment:
    return Ailment("document_failed", "{name!r} could not be read.", col(DocumentRow.state) == "failed")


def told(ailment: Ailment, row: DocumentRow) -> str:
    return ailment.message.format(name=row.name, state=row.state)


def ailing(
    session: Session, ailment: Ailment, tenant: str | None = None, *, limit: int | None = None, after: str = ""
) -> Sequence[DocumentRow]:
    """By id, of one tenant or all."""
    query = select(DocumentRow).where(ailment.condition, DocumentRow.id > after).order_by(col(DocumentRow.id))
    if tenant is not None:
        query = query.where(DocumentRow.tenant_id == tenant)
    return session.exec(query.limit(limit)).all()


def count(session: Session, ailment: Ailment, tenant: str) -> int:
    query = select(func.count()).select_from(DocumentRow)
    return session.exec(query.where(DocumentRow.tenant_id == tenant, ailment.condition)).one()


def again(session: Session, jobs: Jobs, seen: DocumentRow, kind: str) -> bool:
    """Have it read or embedded again, unless somebody was quicker."""
    scope = Scope(seen.tenant_id)
    current = store.get(session, scope, seen.id)
    if current.job_id != seen.job_id:
        return False
    store.enqueue(session, scope, jobs, current, kind, priority=PRIORITY)
    return True
