"""Rows of other databases. Functions of a session: they run inside `Database.read` or `write`."""

from typing import Any, cast

from sqlmodel import Session, col, func, select

from terrace.campaigns.databases.base import Database, Kind
from terrace.campaigns.databases.tables import DatabaseRow
from terrace.errors import Conflict, Invalid, Missing
from terrace.types import Scope, moment, now

MAX_DATABASES = 100


def get(session: Session, scope: Scope, database_id: str) -> DatabaseRow:
    """Raises Missing."""
    query = select(DatabaseRow).where(DatabaseRow.tenant_id == scope.tenant, DatabaseRow.id == database_id)
    if (row := session.exec(query).one_or_none()) is None:
        raise Missing("There is no such database.", code="database_missing")
    return row


def page(session: Session, scope: Scope) -> list[Database]:
    """By name."""
    mine = select(DatabaseRow).where(DatabaseRow.tenant_id == scope.tenant)
    return [shown(row) for row in session.exec(mine.order_by(col(DatabaseRow.name_key)))]


def add(
    session: Session, scope: Scope, database_id: str, name: str, kind: Kind, place: dict[str, Any], sealed: str
) -> Database:
    """Raises Conflict when another has the name."""
    mine = DatabaseRow.tenant_id == scope.tenant
    if session.exec(select(func.count()).select_from(DatabaseRow).where(mine)).one() >= MAX_DATABASES:
        raise Invalid(f"There may be at most {MAX_DATABASES} databases.", code="too_many_databases")
    if session.exec(select(DatabaseRow.id).where(mine, DatabaseRow.name_key == name.casefold())).first():
        raise Conflict(f"There is a database called {name!r} already.", code="database_exists")
    row = DatabaseRow(
        id=database_id,
        tenant_id=scope.tenant,
        name=name,
        name_key=name.casefold(),
        kind=kind,
        place=place,
        sealed=sealed,
        user_id=scope.user,
        created_at=now(),
    )
    session.add(row)
    session.flush()
    return shown(row)


def remove(session: Session, scope: Scope, database_id: str) -> None:
    session.delete(get(session, scope, database_id))


def shown(row: DatabaseRow) -> Database:
    place = row.place
    return Database(
        id=row.id,
        name=row.name,
        kind=cast(Kind, row.kind),
        host=place["host"],
        port=place["port"] or None,
        database=place["database"],
        tls=place["tls"] if row.kind != "sqlite" else None,
        created_at=moment(row.created_at),
    )
