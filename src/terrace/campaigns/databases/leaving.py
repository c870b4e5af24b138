"""When local mode ends, a person is erased, a tenant is exported or deleted."""

from collections.abc import AsyncIterator
from dataclasses import asdict

import msgspec
from sqlalchemy import delete, update
from sqlmodel import Session, col

from terrace.campaigns.databases import store
from terrace.campaigns.databases.tables import DatabaseRow
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular has added on this machine becomes the first person's."""
    nobodys = (col(DatabaseRow.tenant_id) == DEFAULT_TENANT, col(DatabaseRow.user_id).is_(None))
    session.execute(update(DatabaseRow).where(*nobodys).values(user_id=user_id))


def erase_user(session: Session, user_id: str) -> None:
    """A person's databases stay their tenants' and no longer say who added them."""
    if not user_id:
        raise ValueError("nobody cannot be erased")
    session.execute(update(DatabaseRow).where(col(DatabaseRow.user_id) == user_id).values(user_id=None))


def erase_tenant(session: Session, scope: Scope) -> None:
    session.execute(delete(DatabaseRow).where(col(DatabaseRow.tenant_id) == scope.tenant))


async def export(database: Database, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """(path in the archive, its bytes): a line of JSON for each database, without its credentials."""
    yield "contacts/databases.jsonl", _lines(database, scope)


async def _lines(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    for each in await database.read(store.page, scope):
        yield msgspec.json.encode(asdict(each)) + b"\n"
