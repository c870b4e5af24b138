"""When local mode ends, a person is erased, a tenant is exported or deleted."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict

import msgspec
from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from terrace.knowledge import store, trash
from terrace.knowledge.base import Document, Index
from terrace.knowledge.tables import CollectionRow, DocumentRow
from terrace.storage import Blobs, Database, after_commit
from terrace.types import DEFAULT_TENANT, Scope

PAGE = 200  # documents read at a time


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular has uploaded on this machine was uploaded by the first person."""
    mine = (col(DocumentRow.tenant_id) == DEFAULT_TENANT, col(DocumentRow.user_id).is_(None))
    session.execute(update(DocumentRow).where(*mine).values(user_id=user_id))


def erase_user(session: Session, user_id: str) -> None:
    """A person's documents stay their tenants' and no longer say whose upload they were."""
    if not user_id:
        raise ValueError("nobody cannot be erased")
    session.execute(update(DocumentRow).where(col(DocumentRow.user_id) == user_id).values(user_id=None, key_id=None))


class Leaving:
    """A whole tenant's documents: out, or gone."""

    def __init__(self, database: Database, blobs: Blobs, index: Index) -> None:
        self._database = database
        self._blobs = blobs
        self._index = index
        self._emptying: set[asyncio.Task[int]] = set()

    def erase_tenant(self, session: Session, scope: Scope) -> None:
        """In a transaction of `Database.write`; the files go once it is durable."""
        mine = select(DocumentRow).where(DocumentRow.tenant_id == scope.tenant).limit(PAGE)
        while rows := session.exec(mine).all():
            store.delete_documents(session, scope, self._index, rows)
            session.flush()
        session.execute(delete(CollectionRow).where(col(CollectionRow.tenant_id) == scope.tenant))
        after_commit(session, lambda: self._empty(scope))

    def _empty(self, scope: Scope) -> None:
        """What is not gone when we stop, the next start removes."""
        task = asyncio.get_running_loop().create_task(trash.empty(self._database, self._blobs, scope))
        self._emptying.add(task)
        task.add_done_callback(self._emptying.discard)

    async def export(self, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """(path in the archive, its bytes): a line of JSON for each document, and each file as it was uploaded."""
        yield "documents/documents.jsonl", self._lines(scope)
        async for document, key in self._documents(scope):
            name = document.name.replace("/", "_").replace("\\", "_")
            yield f"documents/{document.id}/{name}", self._blobs.stream(key)

    async def _lines(self, scope: Scope) -> AsyncIterator[bytes]:
        async for document, _ in self._documents(scope):
            yield msgspec.json.encode(asdict(document)) + b"\n"

    async def _documents(self, scope: Scope) -> AsyncIterator[tuple[Document, str]]:
        """Oldest first, with the keys of their originals."""
        after = ""
        while found := await self._database.read(_page, scope, after):
            for each in found:
                yield each
            after = found[-1][0].id


def _page(session: Session, scope: Scope, after: str) -> list[tuple[Document, str]]:
    mine = select(DocumentRow).where(DocumentRow.tenant_id == scope.tenant, DocumentRow.id > after)
    rows = session.exec(mine.order_by(col(DocumentRow.id)).limit(PAGE)).all()
    return list(zip(store.shown(session, scope, rows), [row.blob for row in rows], strict=True))
