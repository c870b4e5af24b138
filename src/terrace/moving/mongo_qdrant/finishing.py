"""After the last document: who serves, and what a job still makes. And the way back."""

from collections.abc import Callable

from sqlalchemy import delete
from sqlmodel import Session, col, func, select

from terrace.jobs.base import Jobs
from terrace.knowledge import store as documents
from terrace.knowledge import tasks, trash
from terrace.knowledge.base import Index
from terrace.knowledge.generations import store as generation_rows
from terrace.knowledge.tables import CollectionRow, DocumentRow
from terrace.moving.mongo_qdrant import store
from terrace.moving.mongo_qdrant.base import Fit
from terrace.moving.mongo_qdrant.house import House
from terrace.moving.mongo_qdrant.tables import ImportedRow, ImportRow
from terrace.types import Scope

PAGE = 100  # documents in one transaction


async def finish(house: House, scope: Scope, import_id: str, fit: Fit) -> int:
    """Have the vectors that came serve where nothing else is here; else passages get those of the model that serves.

    Returns how many documents wait for a job.
    """
    if fit.kind == "generation" and not await house.database.write(_serve, fit.key):
        after = ""
        while page := await house.database.read(store.page, scope, import_id, after, PAGE):
            ids = [each.document_id for each in page if each.document_id and each.chunks]
            await house.database.write(_embed, scope, house.jobs, ids)
            after = page[-1].source_id
    await house.generations.refresh()
    return await house.database.read(_waiting, scope, import_id)


def _serve(session: Session, key: str) -> bool:
    """Whether the generation serves now: only one that has every passage of every tenant can. (With a scope it would
    see but one of them.)"""
    row = next((each for each in generation_rows.every(session) if each.key == key), None)
    if row is None or row.state == "building" or not generation_rows.complete(session, key):
        return False
    if row.state != "serving":
        generation_rows.switch(session, generation_rows.get(session, row.id))
    return True


def _embed(session: Session, scope: Scope, jobs: Jobs, ids: list[str]) -> None:
    query = select(DocumentRow).where(
        DocumentRow.tenant_id == scope.tenant,
        col(DocumentRow.id).in_(ids),
        DocumentRow.state == "ready",
        DocumentRow.searchable == "words",
    )
    for row in session.exec(query):
        documents.enqueue(session, scope, jobs, row, tasks.EMBED)
        session.add(row)


def _waiting(session: Session, scope: Scope, import_id: str) -> int:
    query = (
        select(func.count())
        .select_from(DocumentRow)
        .join(ImportedRow, col(ImportedRow.document_id) == DocumentRow.id)
        .where(
            DocumentRow.tenant_id == scope.tenant,
            ImportedRow.tenant_id == scope.tenant,
            ImportedRow.import_id == import_id,
            col(DocumentRow.state).in_(documents.IN_PROGRESS),
        )
    )
    return session.exec(query).one()


# -- the way back


async def take_back(house: House, scope: Scope, row: ImportRow, progress: Callable[[int], None]) -> int:
    """How many documents went."""
    gone = 0
    while ids := await house.database.read(_brought, scope, row.id):
        stopped = await house.database.write(_delete, scope, house.index, row.id, ids)
        for job_id in stopped:
            await house.jobs.cancel(scope, job_id, everyone=True)
        await trash.empty(house.database, house.blobs, scope)
        gone += len(ids)
        progress(gone)
    if row.generation_id is not None:
        await _drop_generation(house, scope, row.generation_id)
    await house.database.write(_forget, scope, row.id)
    return gone


def _brought(session: Session, scope: Scope, import_id: str) -> list[str]:
    query = select(ImportedRow.source_id).where(
        ImportedRow.tenant_id == scope.tenant, ImportedRow.import_id == import_id, ImportedRow.document_id != ""
    )
    return list(session.exec(query.limit(PAGE)))


def _delete(session: Session, scope: Scope, index: Index, import_id: str, source_ids: list[str]) -> list[str]:
    """Jobs that were still at work on them."""
    mine = (
        col(ImportedRow.tenant_id) == scope.tenant,
        col(ImportedRow.import_id) == import_id,
        col(ImportedRow.source_id).in_(source_ids),
    )
    ids = list(session.exec(select(ImportedRow.document_id).where(*mine)))
    rows = session.exec(select(DocumentRow).where(DocumentRow.tenant_id == scope.tenant, col(DocumentRow.id).in_(ids)))
    jobs = documents.delete_documents(session, scope, index, rows.all())
    session.execute(delete(ImportedRow).where(*mine))
    return jobs


async def _drop_generation(house: House, scope: Scope, generation_id: str) -> None:
    """One that serves gives way to the one before."""
    every = {each.id: each for each in await house.generations.list()}
    if (mine := every.get(generation_id)) is None:
        return
    if mine.state == "serving":
        before = [each for each in every.values() if each.state == "retired"]
        if not before:
            return
        last = max(before, key=lambda each: each.switched_at.timestamp() if each.switched_at else 0.0)
        await house.database.write(_switch_back, last.id)
        await house.generations.refresh()
    await house.generations.drop(scope, generation_id)


def _switch_back(session: Session, generation_id: str) -> None:
    """Passages that it lacks are made up for as those of any document that is not embedded."""
    generation_rows.switch(session, generation_rows.get(session, generation_id))


def _forget(session: Session, scope: Scope, import_id: str) -> None:
    row = store.get(session, scope, import_id)
    for collection_id in row.collections:
        mine = (col(CollectionRow.tenant_id) == scope.tenant, col(CollectionRow.id) == collection_id)
        used = select(DocumentRow.id).where(
            DocumentRow.tenant_id == scope.tenant, DocumentRow.collection_id == collection_id
        )
        if session.exec(used.limit(1)).first() is None:
            session.execute(delete(CollectionRow).where(*mine))
    session.execute(
        delete(ImportedRow).where(col(ImportedRow.tenant_id) == scope.tenant, col(ImportedRow.import_id) == import_id)
    )
    store.keep(session, scope, import_id, state="rolled_back", collections=[])
