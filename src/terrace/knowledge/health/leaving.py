"""When a tenant is exported or deleted. Nothing here says anything of a person."""

from collections.abc import AsyncIterator
from dataclasses import asdict

import msgspec
from sqlalchemy import delete
from sqlmodel import Session, col

from terrace.knowledge.health import store
from terrace.knowledge.health.tables import ReportRow, RetrievalRow, WatchRow
from terrace.storage import Database
from terrace.types import Scope


def erase_tenant(session: Session, scope: Scope) -> None:
    for table in (RetrievalRow, ReportRow, WatchRow):
        session.execute(delete(table).where(col(table.tenant_id) == scope.tenant))


async def export(database: Database, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """(path in the archive, its bytes): the last report on the corpus."""
    yield "corpus-health.json", _report(database, scope)


async def _report(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    report, history = await database.read(store.latest, scope, store.KEPT_REPORTS)
    told = None if report is None else asdict(report)
    yield msgspec.json.encode({"report": told, "history": [asdict(each) for each in history]}) + b"\n"
