"""Blobs that nothing refers to any more: decided with the rows, carried out after the commit.

A crash between the two leaves the decision in `blob_trash`; whoever comes next carries it out.
"""

from sqlalchemy import delete
from sqlmodel import Session, col, select

from terrace.knowledge.tables import TrashRow
from terrace.storage import Blobs, Database
from terrace.types import Scope

AT_ONCE = 500


async def empty(database: Database, blobs: Blobs, scope: Scope) -> int:
    """Remove the tenant's trash; how many blobs went."""
    removed = 0
    while keys := await database.read(_keys, scope):
        for key in keys:
            await blobs.delete(key)
        await database.write(_forget, scope, keys)
        removed += len(keys)
    return removed


def _keys(session: Session, scope: Scope) -> list[str]:
    return list(session.exec(select(TrashRow.key).where(TrashRow.tenant_id == scope.tenant).limit(AT_ONCE)))


def _forget(session: Session, scope: Scope, keys: list[str]) -> None:
    session.execute(delete(TrashRow).where(col(TrashRow.tenant_id) == scope.tenant, col(TrashRow.key).in_(keys)))
