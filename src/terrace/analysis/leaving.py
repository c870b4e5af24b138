"""When local mode ends, a person is erased, a tenant is exported or deleted; and what broken uploads leave."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial

import msgspec
from sqlalchemy import ColumnElement, update
from sqlmodel import Session, col, select

from terrace.analysis import store
from terrace.analysis.tables import AnalysisRow
from terrace.knowledge import trash
from terrace.storage import Blobs, Database, after_commit
from terrace.types import DEFAULT_TENANT, Scope, now

PAGE = 100  # analyses read at a time
STALE_SECONDS = 86_400.0  # an upload that is no further after a day has been broken off


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular had analysed on this machine becomes the first person's."""
    nobodys = (col(AnalysisRow.tenant_id) == DEFAULT_TENANT, col(AnalysisRow.user_id).is_(None))
    session.execute(update(AnalysisRow).where(*nobodys).values(user_id=user_id))


class Leaving:
    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs
        self._emptying: set[asyncio.Task[int]] = set()

    def erase_user(self, session: Session, user_id: str) -> None:
        """Their analyses, in every tenant: like what they asked, nobody else has seen them."""
        if not user_id:
            raise ValueError("nobody cannot be erased")
        self._remove(session, col(AnalysisRow.user_id) == user_id)

    def erase_tenant(self, session: Session, scope: Scope) -> None:
        """In a transaction of `Database.write`; the files go once it is durable."""
        self._remove(session, col(AnalysisRow.tenant_id) == scope.tenant)

    async def tidy(self, stale: float = STALE_SECONDS) -> int:
        """Remove what broken uploads left, and files that no row knows; how many uploads."""

        def remove(session: Session) -> int:
            old = (col(AnalysisRow.state) == "saving", col(AnalysisRow.updated_at) < now() - stale)
            rows = session.exec(select(AnalysisRow).where(*old).limit(PAGE)).all()
            tenants = {row.tenant_id for row in rows}
            store.remove(session, rows)
            for tenant in tenants:
                after_commit(session, partial(self._empty, Scope(tenant)))
            return len(rows)

        gone = 0
        while removed := await self._database.write(remove):
            gone += removed
        await self._drop_orphans(stale)
        return gone

    async def export(self, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """(path in the archive, its bytes): a line of JSON for each analysis, and each file as it was sent."""
        yield "analyses/analyses.jsonl", self._lines(scope)
        async for row in self._rows(scope):
            if row.state != "saving":
                name = row.name.replace("/", "_").replace("\\", "_")
                yield f"analyses/{row.id}/{name}", self._blobs.stream(row.blob)

    async def _lines(self, scope: Scope) -> AsyncIterator[bytes]:
        async for row in self._rows(scope):
            told = asdict(store.shown(row)) | {
                "user_id": row.user_id, "prompt": row.prompt, "schema": row.fields_schema, "webhook": row.webhook,
            }  # fmt: skip
            yield msgspec.json.encode(told) + b"\n"

    async def _rows(self, scope: Scope) -> AsyncIterator[AnalysisRow]:
        """Oldest first."""

        def some(session: Session, after: str) -> list[AnalysisRow]:
            mine = (col(AnalysisRow.tenant_id) == scope.tenant, col(AnalysisRow.id) > after)
            return list(session.exec(select(AnalysisRow).where(*mine).order_by(col(AnalysisRow.id)).limit(PAGE)).all())

        last = ""
        while rows := await self._database.read(some, last):
            for row in rows:
                yield row
            last = rows[-1].id

    def _remove(self, session: Session, which: ColumnElement[bool]) -> None:
        tenants: set[str] = set()
        while rows := session.exec(select(AnalysisRow).where(which).limit(PAGE)).all():
            tenants |= {row.tenant_id for row in rows}
            store.remove(session, rows)
        for tenant in tenants:
            after_commit(session, partial(self._empty, Scope(tenant)))

    def _empty(self, scope: Scope) -> None:
        """What is not gone when we stop, the next start removes."""
        task = asyncio.get_running_loop().create_task(trash.empty(self._database, self._blobs, scope))
        self._emptying.add(task)
        task.add_done_callback(self._emptying.discard)

    async def _drop_orphans(self, stale: float) -> None:
        """Files of analyses that are not there: their server died between the file and the row."""
        old = [
            each.key
            async for each in self._blobs.list()
            if each.key.split("/")[1:2] == ["analyses"] and each.modified_at < now() - stale
        ]
        for start in range(0, len(old), PAGE):
            some = old[start : start + PAGE]
            ids = {key.split("/")[2] for key in some}

            def known(session: Session, ids: set[str] = ids) -> set[str]:
                return set(session.exec(select(AnalysisRow.id).where(col(AnalysisRow.id).in_(ids))).all())

            there = await self._database.read(known)
            for key in some:
                if key.split("/")[2] not in there:
                    await self._blobs.delete(key)
