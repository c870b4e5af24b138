"""Rows of imports. Functions of a session."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from terrace.errors import Missing
from terrace.knowledge.generations import store as generations
from terrace.knowledge.generations.tables import GenerationRow
from terrace.moving.mongo_qdrant.base import Counts, Fit
from terrace.moving.mongo_qdrant.tables import ImportedRow, ImportRow
from terrace.types import Scope, new_id, now


def get(session: Session, scope: Scope, import_id: str) -> ImportRow:
    query = select(ImportRow).where(ImportRow.tenant_id == scope.tenant, ImportRow.id == import_id)
    if (row := session.exec(query).one_or_none()) is None:
        raise Missing("There is no such import. `terrace import list` shows them.", code="import_missing")
    return row


def read(session: Session, scope: Scope, import_id: str) -> ImportRow:
    """As it stands, to keep."""
    row = get(session, scope, import_id)
    session.expunge(row)
    return row


def every(session: Session, scope: Scope) -> list[ImportRow]:
    """Newest first."""
    query = select(ImportRow).where(ImportRow.tenant_id == scope.tenant).order_by(col(ImportRow.id).desc())
    rows = list(session.exec(query))
    for row in rows:
        session.expunge(row)
    return rows


def unfinished(session: Session, scope: Scope, plan: str) -> str | None:
    """The latest import of this plan that did not get to its end."""
    query = select(ImportRow.id).where(
        ImportRow.tenant_id == scope.tenant, ImportRow.plan == plan, ImportRow.state == "running"
    )
    return session.exec(query.order_by(col(ImportRow.id).desc())).first()


def begin(session: Session, scope: Scope, plan: str, source: dict[str, Any]) -> str:
    at = now()
    row = ImportRow(
        id=new_id("imp"),
        tenant_id=scope.tenant,
        state="running",
        plan=plan,
        source=source,
        created_at=at,
        updated_at=at,
    )
    session.add(row)
    session.flush()
    return row.id


def keep(session: Session, /, scope: Scope, import_id: str, **values: Any) -> None:
    row = get(session, scope, import_id)
    for name, value in values.items():
        setattr(row, name, value)
    row.updated_at = now()
    session.add(row)


def add_generation(session: Session, scope: Scope, import_id: str, fit: Fit) -> str:
    """A generation for the vectors that come, beside the one that serves; the key they are kept under."""
    run = get(session, scope, import_id)
    taken = {row.key for row in generations.every(session)} | set(generations.keys(session))
    key = next(name for name in _names(fit.model) if name not in taken)
    at = now()
    made = GenerationRow(
        id=new_id("gen"),
        key=key,
        model=fit.model,
        setting=fit.setting,
        precision=fit.precision,
        state="ready",
        dimensions=fit.dimensions,
        automatic=False,
        bound=0.0,
        note=f"Its vectors came with the import {import_id}.",
        created_at=at,
        ready_at=at,
    )
    session.add(made)
    run.generation_id = made.id
    session.add(run)
    session.flush()
    return key


def _names(model: str) -> Iterator[str]:
    yield model
    for number in range(2, 1000):
        yield f"{model}#{number}"


def came(session: Session, scope: Scope, import_id: str) -> Counts:
    return _sums(session, scope, import_id, ImportedRow.document_id != "")


def were_here(session: Session, scope: Scope, import_id: str) -> Counts:
    """Whose text was in its collection already."""
    return _sums(session, scope, import_id, ImportedRow.document_id == "")


def known(session: Session, scope: Scope, import_id: str, source_ids: Sequence[str]) -> set[str]:
    """Those of these that are done with."""
    query = select(ImportedRow.source_id).where(
        ImportedRow.tenant_id == scope.tenant,
        ImportedRow.import_id == import_id,
        col(ImportedRow.source_id).in_(source_ids),
    )
    return set(session.exec(query))


def _sums(session: Session, scope: Scope, import_id: str, which: Any) -> Counts:
    mine = (ImportedRow.tenant_id == scope.tenant, ImportedRow.import_id == import_id, which)
    sums = func.count(), func.coalesce(func.sum(ImportedRow.chunks), 0), func.coalesce(func.sum(ImportedRow.vectors), 0)
    documents, chunks, vectors = session.exec(select(*sums).where(*mine)).one()
    return Counts(int(documents), int(chunks), int(vectors))


def page(session: Session, scope: Scope, import_id: str, after: str, limit: int) -> list[ImportedRow]:
    """In the order of their ids there."""
    query = (
        select(ImportedRow)
        .where(
            ImportedRow.tenant_id == scope.tenant,
            ImportedRow.import_id == import_id,
            col(ImportedRow.source_id) > after,
        )
        .order_by(col(ImportedRow.source_id))
        .limit(limit)
    )
    rows = list(session.exec(query))
    for row in rows:
        session.expunge(row)
    return rows


def by_source(session: Session, scope: Scope, import_id: str, source_ids: Sequence[str]) -> dict[str, str]:
    """Documents here by their id there."""
    query = select(ImportedRow.source_id, ImportedRow.document_id).where(
        ImportedRow.tenant_id == scope.tenant,
        ImportedRow.import_id == import_id,
        col(ImportedRow.source_id).in_(source_ids),
    )
    return {source: document for source, document in session.exec(query) if document}
