"""When local mode ends, a person is erased, or a tenant is exported or deleted."""

from collections.abc import AsyncIterator

import msgspec
from sqlalchemy import delete
from sqlmodel import Session, col, select

from terrace.chat.cache.tables import CachedAnswerRow, CacheTallyRow
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope

PAGE = 200  # answers read at a time


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular had asked on this machine is forgotten: it would be nobody's to erase."""
    nobodys = (col(CachedAnswerRow.tenant_id) == DEFAULT_TENANT, col(CachedAnswerRow.user_id).is_(None))
    session.execute(delete(CachedAnswerRow).where(*nobodys))


def erase_user(session: Session, user_id: str) -> None:
    """What they asked, in every tenant, those answers included that served others too."""
    session.execute(delete(CachedAnswerRow).where(col(CachedAnswerRow.user_id) == user_id))


def erase_tenant(session: Session, scope: Scope) -> None:
    session.execute(delete(CachedAnswerRow).where(col(CachedAnswerRow.tenant_id) == scope.tenant))
    session.execute(delete(CacheTallyRow).where(col(CacheTallyRow.tenant_id) == scope.tenant))


async def export(database: Database, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """Every kept answer of a tenant, a line of JSON each: the path in an archive, and the bytes."""
    yield "cached_answers.jsonl", _lines(database, scope)


async def _lines(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    last = ""
    while rows := await database.read(_after, scope, last):
        last = rows[-1].key
        for row in rows:
            yield msgspec.json.encode(row.model_dump(exclude={"tenant_id", "vector", "embedder"})) + b"\n"


def _after(session: Session, scope: Scope, last: str) -> list[CachedAnswerRow]:
    mine = (CachedAnswerRow.tenant_id == scope.tenant, CachedAnswerRow.key > last)
    return list(session.exec(select(CachedAnswerRow).where(*mine).order_by(col(CachedAnswerRow.key)).limit(PAGE)))
