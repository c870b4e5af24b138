"""SQL that differs between the databases, though it means the same on both."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import BindParameter, TextClause, bindparam, text
from sqlmodel import Session

SLICE = 500  # rows in one statement

Row = Mapping[str, Any]


def is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def driver_of(session: Session) -> Any:
    """PostgreSQL's own connection, past SQLAlchemy."""
    return session.connection().connection.driver_connection


class Many:
    """A statement for many rows.

    On SQLite the driver runs it for one row after the other; on PostgreSQL each execution is a journey and a plan, so
    that there one execution reads all rows out of one JSON value: arrays take the driver ten times as long to write.
    `columns` names the values of a row, and their types.
    """

    def __init__(self, sqlite: str, postgresql: str, **columns: str) -> None:
        types = ", ".join(f"{name} {type}" for name, type in columns.items())
        self._sqlite = sqlite
        self._postgresql = postgresql
        self._types = types

    def run(self, session: Session, rows: Sequence[Row]) -> None:
        """Past SQLAlchemy's compiler, which would cost more than the database does."""
        connection, on_postgresql = session.connection(), is_postgresql(session)
        for start in range(0, len(rows), SLICE):
            part = rows[start : start + SLICE]
            if on_postgresql:
                connection.exec_driver_sql(self.reading("rows"), {"rows": _json(part)})
            else:
                connection.exec_driver_sql(self._sqlite, list(part))

    def run_beside(self, session: Session, rows: Sequence[Row], other: "Many", others: Sequence[Row]) -> None:
        """Both, in one journey where that is possible; neither may need what the other has done."""
        if not is_postgresql(session) or not (0 < len(rows) <= SLICE and 0 < len(others) <= SLICE):
            self.run(session, rows)
            other.run(session, others)
            return
        both = f"WITH beside AS ({self.reading('rows')}) {other.reading('others')}"
        session.connection().exec_driver_sql(both, {"rows": _json(rows), "others": _json(others)})

    def reading(self, name: str) -> str:
        """The statement for PostgreSQL, whose rows come as the parameter of that name."""
        return self._postgresql.format(rows=f"json_to_recordset(%({name})s::json) AS given({self._types})")


def _json(rows: Sequence[Row]) -> str:
    return msgspec.json.encode(rows).decode()


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
        for name in lists:  # one array is cheaper than a list of parameters
            statement = statement.replace(f"IN :{name}", f"= ANY(:{name})")
        self._locking = text(f"{statement} FOR NO KEY UPDATE{' SKIP LOCKED' if skip else ''}")

    def on(self, session: Session) -> TextClause:
        return self._locking if is_postgresql(session) else self._plain
