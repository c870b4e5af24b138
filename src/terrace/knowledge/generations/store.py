"""Rows of generations, their vectors, and recent questions. Functions of a session."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, update
from sqlmodel import Session, col, select

from terrace.errors import Missing
from terrace.knowledge.contents import WORDS_ONLY
from terrace.knowledge.generations.tables import GenerationRow, RecentQueryRow
from terrace.knowledge.index import inspecting
from terrace.knowledge.index.tables import VectorRow
from terrace.knowledge.tables import ChunkRow, DocumentRow
from terrace.types import Scope, now

KEEP_DAYS = 30
KEEP_QUERIES = 100  # a tenant
ORDER = {"serving": 0, "ready": 1, "building": 2, "retired": 3}


def every(session: Session) -> list[GenerationRow]:
    """That which serves first, then by age."""
    rows = list(session.exec(select(GenerationRow)))
    for row in rows:
        session.expunge(row)
    return sorted(rows, key=lambda row: (ORDER[row.state], row.created_at))


def get(session: Session, generation_id: str) -> GenerationRow:
    row = session.exec(select(GenerationRow).where(GenerationRow.id == generation_id)).one_or_none()
    if row is None:
        raise Missing("There is no such generation.", code="generation_missing")
    return row


def serving(session: Session) -> GenerationRow | None:
    return session.exec(select(GenerationRow).where(GenerationRow.state == "serving")).first()


def counts(session: Session) -> tuple[dict[str, int], int]:
    """(vectors by key, chunks) of all tenants."""
    by_key = session.exec(select(VectorRow.model, func.count()).group_by(VectorRow.model)).all()
    return dict(by_key), session.exec(select(func.count()).select_from(ChunkRow)).one()


def _without(key: str) -> ColumnElement[bool]:
    """Chunks that have no vector under this key."""
    there = select(VectorRow.id).where(
        VectorRow.tenant_id == ChunkRow.tenant_id, VectorRow.model == key, VectorRow.number == ChunkRow.number
    )
    return ~there.exists()


def missing(session: Session, key: str, after: int, limit: int) -> list[tuple[int, str, str, str]]:
    """(number, id, tenant, text) of chunks of all tenants that have no vector under this key, from `after` on."""
    query = (
        select(col(ChunkRow.number), ChunkRow.id, ChunkRow.tenant_id, ChunkRow.text)
        .where(col(ChunkRow.number) > after, _without(key))
        .order_by(col(ChunkRow.number))
        .limit(limit)
    )
    return [tuple(row) for row in session.exec(query)]  # type: ignore[misc]


def complete(session: Session, key: str) -> bool:
    """Whether every passage of every document that is ready has its vector."""
    query = (
        select(ChunkRow.id)
        .join(DocumentRow, col(DocumentRow.id) == ChunkRow.document_id)
        .where(DocumentRow.state == "ready", _without(key))
    )
    return session.exec(query.limit(1)).first() is None


def switch(session: Session, row: GenerationRow) -> None:
    """From this commit on it serves, and the one before is kept. All its vectors must be there."""
    session.execute(update(GenerationRow).where(col(GenerationRow.state) == "serving").values(state="retired"))
    row.state, row.switched_at, row.note = "serving", now(), ""
    session.add(row)
    session.flush()
    ready = (col(DocumentRow.state) == "ready", col(DocumentRow.chunk_count) > 0)
    for document in session.exec(select(DocumentRow).where(*ready, DocumentRow.searchable == "words")):
        document.warnings = [each for each in document.warnings if not each.startswith(WORDS_ONLY)]
    session.execute(update(DocumentRow).where(*ready).values(embedding=row.key, searchable="meaning"))


def drop_vectors(session: Session, key: str, limit: int) -> int:
    """Up to `limit` of those kept under this key; how many went."""
    query = select(VectorRow.tenant_id, col(VectorRow.id)).where(VectorRow.model == key).limit(limit)
    by_tenant: dict[str, list[int]] = {}
    for tenant, number in session.exec(query):
        by_tenant.setdefault(tenant, []).append(number or 0)
    for tenant, numbers in by_tenant.items():
        inspecting.remove_ids(session, Scope(tenant), numbers)
    return sum(map(len, by_tenant.values()))


def keys(session: Session) -> list[str]:
    """Under which there are vectors."""
    return list(session.exec(select(VectorRow.model).distinct()))


def numbered_leftovers(session: Session) -> list[str]:
    """Keys of generations that are gone (`name#2`), whose vectors are still there. Others may be somebody else's."""
    known = {row.key for row in every(session)}
    names = {key.partition("#")[0] for key in known}
    return [key for key in keys(session) if key not in known and key.partition("#")[0] in names]


def dimensions(session: Session, key: str) -> int:
    found = session.exec(select(VectorRow.vector).where(VectorRow.model == key).limit(1)).first()
    return len(found or b"") // 2  # of float16


# -- recent questions


def add_queries(session: Session, asked: Sequence[tuple[str, str, float]]) -> None:
    """(tenant, query, when); of each tenant only the newest are kept, and none for longer than a month."""
    tenants = {tenant for tenant, _, _ in asked}
    for tenant, query, at in asked:
        same = (col(RecentQueryRow.tenant_id) == tenant, col(RecentQueryRow.query) == query)
        session.execute(delete(RecentQueryRow).where(*same))
        session.add(RecentQueryRow(tenant_id=tenant, query=query, asked_at=at))
    session.flush()
    for tenant in tenants:
        mine = select(col(RecentQueryRow.id)).where(RecentQueryRow.tenant_id == tenant)
        newest = mine.order_by(col(RecentQueryRow.id).desc()).offset(KEEP_QUERIES).limit(1)
        edge = session.exec(newest).first()
        if edge is not None:
            old = (col(RecentQueryRow.tenant_id) == tenant, col(RecentQueryRow.id) <= edge)
            session.execute(delete(RecentQueryRow).where(*old))
    forget_old(session)


def forget_old(session: Session) -> None:
    session.execute(delete(RecentQueryRow).where(col(RecentQueryRow.asked_at) < now() - KEEP_DAYS * 86_400))


def queries(session: Session, most: int) -> list[tuple[str, str]]:
    """(tenant, query): the newest of every tenant in turn, until there are `most`."""
    rank = func.row_number().over(partition_by=RecentQueryRow.tenant_id, order_by=col(RecentQueryRow.id).desc())
    ranked: Any = select(RecentQueryRow.tenant_id, RecentQueryRow.query, rank.label("place")).where(
        RecentQueryRow.asked_at >= now() - KEEP_DAYS * 86_400
    ).subquery()  # fmt: skip
    rows = session.execute(select(ranked.c.tenant_id, ranked.c.query).order_by(ranked.c.place).limit(most))
    return [(tenant, query) for tenant, query in rows]


def forget_tenant(session: Session, scope: Scope) -> None:
    """What was searched for in a tenant goes with it; its vectors go with its documents."""
    session.execute(delete(RecentQueryRow).where(col(RecentQueryRow.tenant_id) == scope.tenant))
