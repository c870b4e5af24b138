"""When a tenant is exported or deleted. Nothing here says which person something was done for."""

from collections.abc import AsyncIterator
from dataclasses import asdict

import msgspec
from sqlalchemy import delete
from sqlmodel import Session, col, select

from terrace.storage import Database
from terrace.types import Scope
from terrace.webhooks import store
from terrace.webhooks.tables import CourierRow, DeliveryRow, EndpointRow, SignerRow

PAGE = 200  # rows read at a time


def erase_tenant(session: Session, scope: Scope) -> None:
    """Endpoints, secrets and the log. A courier under way finds nothing more to deliver."""
    for table in (DeliveryRow, CourierRow, SignerRow, EndpointRow):
        session.execute(delete(table).where(col(table.tenant_id) == scope.tenant))


async def export(database: Database, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """(path in the archive, its bytes): endpoints without their secrets, and what was sent to them."""
    yield "webhooks/endpoints.jsonl", _endpoints(database, scope)
    yield "webhooks/deliveries.jsonl", _deliveries(database, scope)


async def _endpoints(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    cursor = None
    while rows := await database.read(store.endpoints, scope, PAGE, cursor):
        for row in rows:
            yield msgspec.json.encode(asdict(store.to_endpoint(row))) + b"\n"
        cursor = rows[-1].id


async def _deliveries(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    after = ""
    while rows := await database.read(_page, scope, after):
        for row in rows:
            yield msgspec.json.encode(store.exported(row)) + b"\n"
        after = rows[-1].id


def _page(session: Session, scope: Scope, after: str) -> list[DeliveryRow]:
    mine = select(DeliveryRow).where(DeliveryRow.tenant_id == scope.tenant, DeliveryRow.id > after)
    return list(session.exec(mine.order_by(col(DeliveryRow.id)).limit(PAGE)).all())
