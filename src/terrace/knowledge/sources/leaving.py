"""When local mode ends, a person is erased, a tenant is exported or deleted."""

from collections.abc import AsyncIterator
from dataclasses import asdict

import msgspec
from sqlalchemy import delete, update
from sqlmodel import Session, col

from terrace.knowledge.sources import store
from terrace.knowledge.sources.tables import SourceItemRow, SourceRow
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope

PAGE = 200


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular has set up on this machine was set up by the first person."""
    mine = (col(SourceRow.tenant_id) == DEFAULT_TENANT, col(SourceRow.user_id).is_(None))
    session.execute(update(SourceRow).where(*mine).values(user_id=user_id))


def erase_user(session: Session, user_id: str) -> None:
    """A person's sources stay their tenants' and no longer say who made them."""
    if not user_id:
        raise ValueError("nobody cannot be erased")
    session.execute(update(SourceRow).where(col(SourceRow.user_id) == user_id).values(user_id=None))


def erase_tenant(session: Session, scope: Scope) -> None:
    """The documents go with the tenant's others."""
    session.execute(delete(SourceItemRow).where(col(SourceItemRow.tenant_id) == scope.tenant))
    session.execute(delete(SourceRow).where(col(SourceRow.tenant_id) == scope.tenant))


async def export(database: Database, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """(path in the archive, its bytes): a line of JSON for each source, and for each item of each."""
    yield "sources/sources.jsonl", _sources(database, scope)
    yield "sources/items.jsonl", _items(database, scope)


async def _sources(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    cursor: str | None = None
    while found := await database.read(store.page, scope, PAGE, cursor):
        for each in found:
            yield msgspec.json.encode(asdict(each)) + b"\n"
        cursor = found[-1].id


async def _items(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    after = ("", "")
    while found := await database.read(store.after, scope, after, PAGE):
        for source_id, key_hash, item in found:
            yield msgspec.json.encode({"source_id": source_id, **asdict(item)}) + b"\n"
            after = (source_id, key_hash)
