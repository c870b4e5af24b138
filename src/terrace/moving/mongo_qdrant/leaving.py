"""When a tenant is exported or deleted. Nothing here says whose upload anything was."""

import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
from sqlalchemy import delete
from sqlmodel import Session, col, select

from terrace.moving.mongo_qdrant import store
from terrace.moving.mongo_qdrant.tables import ImportedRow, ImportRow
from terrace.storage import Database, after_commit
from terrace.types import Scope

PAGE = 200


class Leaving:
    """`folder` is where imports stage what they read."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def erase_tenant(self, session: Session, scope: Scope) -> None:
        """Rows now, and what an unfinished import has staged once they are gone."""
        ids = session.exec(select(ImportRow.id).where(ImportRow.tenant_id == scope.tenant)).all()
        session.execute(delete(ImportedRow).where(col(ImportedRow.tenant_id) == scope.tenant))
        session.execute(delete(ImportRow).where(col(ImportRow.tenant_id) == scope.tenant))
        after_commit(session, lambda: self._forget(ids))

    def _forget(self, ids: Sequence[str]) -> None:
        for import_id in ids:
            shutil.rmtree(self._folder / import_id, ignore_errors=True)

    async def export(self, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """(path in the archive, its bytes): a line for each document that was imported, with the metadata it had."""
        for run in await self._database.read(store.every, scope):
            yield f"imports/{run.id}.jsonl", self._lines(scope, run)

    async def _lines(self, scope: Scope, run: ImportRow) -> AsyncIterator[bytes]:
        yield msgspec.json.encode({"id": run.id, "state": run.state, "source": run.source}) + b"\n"
        after = ""
        while page := await self._database.read(store.page, scope, run.id, after, PAGE):
            for row in page:
                told = {"source_id": row.source_id, "document_id": row.document_id, "metadata": row.details}
                yield msgspec.json.encode(told) + b"\n"
            after = page[-1].source_id
