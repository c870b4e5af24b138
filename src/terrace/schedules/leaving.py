"""When local mode ends, a person is erased, a tenant is exported or deleted."""

from collections.abc import AsyncIterator
from dataclasses import asdict

import msgspec
from sqlalchemy import delete, update
from sqlmodel import Session, col

from terrace.schedules import store
from terrace.schedules.tables import RunRow, ScheduleRow
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope

PAGE = 200


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular has made on this machine becomes the first person's; built-in ones stay nobody's."""
    nobodys = (col(ScheduleRow.tenant_id) == DEFAULT_TENANT, col(ScheduleRow.user_id).is_(None))
    session.execute(update(ScheduleRow).where(*nobodys, ~col(ScheduleRow.built_in)).values(user_id=user_id))


def erase_user(session: Session, user_id: str) -> None:
    """A person's schedules stay their tenants' and no longer say who made them."""
    if not user_id:
        raise ValueError("nobody cannot be erased")
    session.execute(update(ScheduleRow).where(col(ScheduleRow.user_id) == user_id).values(user_id=None, key_id=None))


def erase_tenant(session: Session, scope: Scope) -> None:
    session.execute(delete(RunRow).where(col(RunRow.tenant_id) == scope.tenant))
    session.execute(delete(ScheduleRow).where(col(ScheduleRow.tenant_id) == scope.tenant))


async def export(database: Database, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """(path in the archive, its bytes): a line of JSON for each schedule, its latest runs in it."""
    yield "schedules.jsonl", _lines(database, scope)


async def _lines(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    cursor: str | None = None
    while items := await database.read(store.page, scope, PAGE, cursor):
        for each in items:
            runs = await database.read(store.run_page, scope, each.id, PAGE, None)
            yield msgspec.json.encode({**asdict(each), "runs": [asdict(run) for run in runs]}) + b"\n"
        cursor = items[-1].id
