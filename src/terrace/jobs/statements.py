"""SQL that differs between the databases, though it means the same on both."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, TextClause, bindparam, text
from sqlmodel import Session

SLICE = 500  # rows in one statement


def is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


class Many:
    """A statement for many rows.

    On SQLite the driver runs it for one row after the other; on PostgreSQL each execution is a round trip and a plan,
    so that there one execution reads all rows out of arrays. `columns` names the values of a row, and their types.
    """

    def __init__(self, sqlite: str, postgresql: str, **columns: str) -> None:
        arrays = ", ".join(f"%({name})s::{type}[]" for name, type in columns.items())
        self._sqlite = sqlite
        self._postgresql = postgresql.format(rows=f"unnest({arrays}) AS given({', '.join(columns)})")
        self._columns = tuple(columns)

    def run(self, session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
        """Past SQLAlchemy's compiler, which would cost more than the database does."""
        connection, on_postgresql = session.connection(), is_postgresql(session)
        for start in range(0, len(rows), SLICE):
            part = rows[start : start + SLICE]
            if on_postgresql:
                connection.exec_driver_sql(
                    self._postgresql, {name: [row[name] for row in part] for name in self._columns}
                )
            else:
                connection.exec_driver_sql(self._sqlite, list(part))


def insert_into(table: str, **columns: str) -> Many:
    names = ", ".join(columns)
    return Many(
        f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in columns)})",
        f"INSERT INTO {table} ({names}) SELECT * FROM {{rows}}",
        **columns,
    )


class Locking:
    """A SELECT whose rows stay as they are until the transaction ends.

    SQLite has one writer and needs no lock; PostgreSQL takes them in the order of the SELECT, waits for who has one and
    looks again whether the row still matches. `skip` leaves out what somebody else has.
    """

    def __init__(self, statement: str, *lists: str, skip: bool = False) -> None:
        binds: list[BindParameter[Any]] = [bindparam(name, expanding=True) for name in lists]
        self._plain = text(statement).bindparams(*binds)
        self._locking = text(f"{statement} FOR NO KEY UPDATE{' SKIP LOCKED' if skip else ''}").bindparams(*binds)

    def on(self, session: Session) -> TextClause:
        return self._locking if is_postgresql(session) else self._plain
