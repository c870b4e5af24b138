"""When local mode ends, a person is erased, or a tenant is exported or deleted."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

import msgspec
from sqlalchemy import ColumnElement, delete, update
from sqlmodel import Session, col, select

from terrace.batches import store
from terrace.batches.tables import BatchFileRow, BatchLineRow, BatchRow
from terrace.knowledge.store import trash
from terrace.storage import Blobs, Database
from terrace.types import DEFAULT_TENANT, Scope

PAGE = 200  # rows read at a time


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular had made on this machine becomes the first person's."""
    for table in (BatchFileRow, BatchRow):
        nobodys = (col(table.tenant_id) == DEFAULT_TENANT, col(table.user_id).is_(None))
        session.execute(update(table).where(*nobodys).values(user_id=user_id))


def erase_user(session: Session, user_id: str) -> None:
    """Their files and batches, in every tenant. The blobs are in the trash then, which is emptied by and by."""
    _drop(session, col(BatchFileRow.user_id) == user_id, col(BatchRow.user_id) == user_id)


def erase_tenant(session: Session, scope: Scope) -> None:
    _drop(session, col(BatchFileRow.tenant_id) == scope.tenant, col(BatchRow.tenant_id) == scope.tenant)


def _drop(session: Session, files: ColumnElement[bool], batches: ColumnElement[bool]) -> None:
    for row in session.exec(select(BatchFileRow).where(files)):
        trash(session, Scope(row.tenant_id), row.blob)
    session.execute(delete(BatchFileRow).where(files))
    session.execute(delete(BatchLineRow).where(col(BatchLineRow.batch_id).in_(select(BatchRow.id).where(batches))))
    session.execute(delete(BatchRow).where(batches))


class Leaving:
    """A whole tenant's files and batches: out."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    async def export(self, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """(path in the archive, its bytes): a line of JSON for each file and each batch, and the files themselves."""
        yield "batches/files.jsonl", self._files(scope)
        yield "batches/batches.jsonl", self._batches(scope)
        async for row in self._rows(scope):
            yield f"batches/{row.id}/{row.name}", self._blobs.stream(row.blob)

    async def _files(self, scope: Scope) -> AsyncIterator[bytes]:
        async for row in self._rows(scope):
            yield msgspec.json.encode(asdict(store.shown(row)) | {"user_id": row.user_id}) + b"\n"

    async def _rows(self, scope: Scope) -> AsyncIterator[BatchFileRow]:
        after = ""
        while rows := await self._database.read(_files_after, scope, after):
            for row in rows:
                yield row
            after = rows[-1].id

    async def _batches(self, scope: Scope) -> AsyncIterator[bytes]:
        after = ""
        while rows := await self._database.read(_batches_after, scope, after):
            yield b"".join(
                msgspec.json.encode(asdict(store.told(row)) | {"user_id": row.user_id}) + b"\n" for row in rows
            )
            after = rows[-1].id


def _files_after(session: Session, scope: Scope, after: str) -> Sequence[BatchFileRow]:
    mine = select(BatchFileRow).where(BatchFileRow.tenant_id == scope.tenant, BatchFileRow.id > after)
    return session.exec(mine.order_by(col(BatchFileRow.id)).limit(PAGE)).all()


def _batches_after(session: Session, scope: Scope, after: str) -> Sequence[BatchRow]:
    mine = select(BatchRow).where(BatchRow.tenant_id == scope.tenant, BatchRow.id > after)
    return session.exec(mine.order_by(col(BatchRow.id)).limit(PAGE)).all()
