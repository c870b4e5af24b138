"""SQL that differs between the databases, though it means the same on both."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import BindParameter, TextClause, bindparam, text
from sqlmodel import Session

SLICE = 500  # rows in one statement

Row = Mapping[str, Any]

_NAMED = re.compile(r":(\w+)")  # a parameter


def is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


class Many:
    """A statement for many rows.

    On SQLite the driver runs it for one row after the other; on PostgreSQL each execution is a journey and a plan, so
    that there one execution reads all rows out of one JSON value: arrays take the driver ten times as long to write.
    A single row comes as it is, whose plan is the cheapest. `columns` names the values of a row, and their types.
    """

    def __init__(self, one: str, many: str, **columns: str) -> None:
        self._one, self._many = one, many
        self._types = ", ".join(f"{name} {type}" for name, type in columns.items())

    def run(self, session: Session, rows: Sequence[Row]) -> None:
        """Past SQLAlchemy's compiler, which would cost more than the database does."""
        connection, on_postgresql = session.connection(), is_postgresql(session)
        for start in range(0, len(rows), SLICE):
            part = rows[start : start + SLICE]
            if on_postgresql:
                connection.exec_driver_sql(*self._taking(part, "row"))
            else:
                connection.exec_driver_sql(self._one, list(part))

    def run_beside(self, session: Session, rows: Sequence[Row], other: "Many", others: Sequence[Row]) -> None:
        """Both, in one journey where that is possible; neither may need what the other has done."""
        if not is_postgresql(session) or not (0 < len(rows) <= SLICE and 0 < len(others) <= SLICE):
            self.run(session, rows)
            other.run(session, others)
            return
        first, values = self._taking(rows, "row")
        second, more = other._taking(others, "other")
        session.connection().exec_driver_sql(f"WITH beside AS ({first}) {second}", values | more)

    def _taking(self, rows: Sequence[Row], name: str) -> tuple[str, dict[str, Any]]:
        """The statement for PostgreSQL and what it takes; `name` tells its parameters from those of another."""
        if len(rows) == 1:
            values = {f"{name}_{column}": value for column, value in rows[0].items()}
            return _NAMED.sub(rf"%({name}_\1)s", self._one), values
        source = f"json_to_recordset(%({name}s)s::json) AS given({self._types})"
        return self._many.format(rows=source), {f"{name}s": msgspec.json.encode(rows).decode()}


def insert_into(table: str, *, again: bool = False, **columns: str) -> Many:
    """`again`: a row that is there already stays as it is."""
    names, end = ", ".join(columns), " ON CONFLICT DO NOTHING" if again else ""
    return Many(
        f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in columns)}){end}",
        f"INSERT INTO {table} ({names}) SELECT * FROM {{rows}}{end}",
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
