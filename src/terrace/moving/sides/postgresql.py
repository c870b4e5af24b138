"""A PostgreSQL database as one side of a move."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlmodel import Session

from terrace.moving.sides.base import (
    Column,
    Key,
    Kind,
    Row,
    Table,
    among,
    beyond,
    is_moved,
    ordered,
    quoted,
    table,
    upsert,
)
from terrace.moving.sides.halves import from_wire, to_wire
from terrace.storage import migrate
from terrace.storage.postgresql.engine import engine_for
from terrace.storage.postgresql.migrating import LOCK

KINDS: dict[str, Kind] = {"boolean": "boolean", "json": "json", "jsonb": "json"}
READ: dict[Kind, str] = {
    "plain": '"{}"',
    "boolean": '"{}"::int',
    "json": '"{}"::text',
    "vector": 'halfvec_send("{}")',
}
_COLUMNS = """
SELECT c.relname, a.attname, t.typname,
  coalesce((SELECT array_position(i.indkey::smallint[], a.attnum) FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisprimary), -1)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped"""
_POINTERS = """
SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint
WHERE contype = 'f' AND connamespace = current_schema()::regnamespace"""
_SEQUENCES = """
SELECT t.relname, a.attname, coalesce(pg_sequence_last_value(s.oid), 0) FROM pg_class s
JOIN pg_depend d ON d.objid = s.oid AND d.deptype IN ('a', 'i') AND d.classid = 'pg_class'::regclass
JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
WHERE s.relkind = 'S' AND t.relnamespace = current_schema()::regnamespace"""
IDLE = 0  # libpq's PQTRANS_IDLE
OPEN = "SET LOCAL terrace.tenant = '*'; SET LOCAL idle_in_transaction_session_timeout = 0; "


class PostgreSQLSide:
    """Connects as the role of `url`, who owns the tables; sees every tenant's rows."""

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        self._connection = engine_for(url).connect()
        self._driver: Any = self._connection.connection.driver_connection
        self._tables: list[Table] | None = None
        self._types: dict[tuple[str, str], str] = {}  # of (table, column)

    def version(self) -> str | None:
        if self.run("SELECT to_regclass('alembic_version')")[0][0] is None:
            return None
        found = self.run("SELECT version_num FROM alembic_version")
        return str(found[0][0]) if found else None

    def tables(self) -> Sequence[Table]:
        if self._tables is None:
            found: dict[str, list[tuple[str, str, int]]] = {}
            for name, column, type_, place in self.run(_COLUMNS):
                if is_moved(name):
                    self._types[name, column] = type_
                    found.setdefault(name, []).append((column, type_, place))
            pointers = self.run(_POINTERS)
            names = ordered(found, lambda name: [to for one, to in pointers if one.strip('"') == name])
            self._tables = [_table(name, found[name]) for name in names]
        return self._tables

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._transaction("ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with (
            self._transaction("ISOLATION LEVEL REPEATABLE READ READ ONLY", "SELECT 1"),  # which fixes the moment
            Session(self._connection, join_transaction_mode="rollback_only") as session,
        ):
            yield session

    @contextmanager
    def held(self) -> Iterator[None]:
        names = quoted(*(each.name for each in self.tables()))
        with self._transaction("ISOLATION LEVEL READ COMMITTED", f"LOCK TABLE {names} IN SHARE MODE"):
            yield

    def stamp(self) -> object:
        """Transactions that write take numbers: moments with the same next one, and none open, are equal."""
        oldest, following = self.run(
            "SELECT pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text FROM pg_current_snapshot() s"
        )[0]
        return following if oldest == following else None

    @contextmanager
    def writing(self) -> Iterator[Session]:
        with (
            self._transaction("ISOLATION LEVEL READ COMMITTED"),
            Session(self._connection, join_transaction_mode="rollback_only") as session,
        ):
            yield session
            session.flush()
        self._tables = None

    def count(self, table: Table) -> int:
        return int(self.run(f'SELECT count(*) FROM "{table.name}"')[0][0])

    def page(self, table: Table, after: Key | None, limit: int) -> list[Row]:
        order = f"{beyond(table, after)} ORDER BY {quoted(*table.key)} LIMIT ?"
        return self.rows(table, order, (*(after or ()), limit))

    def keys(self, table: Table, after: Key | None, limit: int) -> list[Key]:
        order = f"{beyond(table, after)} ORDER BY {quoted(*table.key)} LIMIT ?"
        return self.run(f'SELECT {quoted(*table.key)} FROM "{table.name}" {order}', (*(after or ()), limit))

    def rows_of(self, table: Table, keys: Sequence[Key]) -> list[Row]:
        return self.rows(table, among(table, keys), [value for key in keys for value in key])

    def rows(self, table: Table, which: str, parameters: Sequence[Any]) -> list[Row]:
        what = ", ".join(READ[each.kind].format(each.name) for each in table.columns)
        rows = self.run(f'SELECT {what} FROM "{table.name}" {which}', parameters)
        vectors = [place for place, each in enumerate(table.columns) if each.kind == "vector"]
        if not vectors:
            return rows
        return [tuple(from_wire(value) if at in vectors else value for at, value in enumerate(row)) for row in rows]

    def put(self, table: Table, rows: Sequence[Row]) -> None:
        """Through a table of this transaction's own: nothing takes rows faster than COPY, which row security forbids
        where it counts."""
        names = [each.name for each in table.columns]
        self.run(f'CREATE TEMP TABLE staged ON COMMIT DROP AS SELECT {quoted(*names)} FROM "{table.name}" LIMIT 0')
        vectors = [place for place, each in enumerate(table.columns) if each.kind == "vector"]
        how = "(FORMAT BINARY)" if vectors else ""  # as text they would take longer than all the rest
        with self._driver.cursor() as cursor, cursor.copy(f"COPY staged ({quoted(*names)}) FROM STDIN {how}") as copy:
            if vectors:
                copy.set_types([self._sent_as(table, each) for each in table.columns])
            for row in rows:
                copy.write_row(_to_wire(row, vectors) if vectors else row)
        self.run(f'INSERT INTO "{table.name}" ({quoted(*names)}) SELECT {quoted(*names)} FROM staged ' + upsert(table))
        self.run("DROP TABLE staged")

    def _sent_as(self, table: Table, column: Column) -> str:
        return "bytea" if column.kind == "vector" else self._types[table.name, column.name]

    def delete(self, table: Table, keys: Sequence[Key]) -> None:
        condition = " AND ".join(f'"{name}" = %s' for name in table.key)
        with self._driver.cursor() as cursor:
            cursor.executemany(f'DELETE FROM "{table.name}" WHERE {condition}', keys)

    def numbers(self) -> dict[str, int]:
        return {name: int(last) for name, _, last in self.run(_SEQUENCES) if last and is_moved(name)}

    def set_numbers(self, numbers: dict[str, int]) -> None:
        for name, column, last in self.run(_SEQUENCES):
            if numbers.get(name, 0) > last:
                self.run("SELECT setval(pg_get_serial_sequence(?, ?), ?)", (name, column, numbers[name]))

    def migrate(self, target: str = "head") -> None:
        self.run(f"SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({LOCK})")
        migrate.migrate(self._connection, target)

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        if self._driver.info.transaction_status == IDLE:  # rows are seen only where a transaction says whose
            with self._transaction("ISOLATION LEVEL READ COMMITTED READ ONLY"):
                return self.run(statement, parameters)
        if not parameters:
            cursor = self._driver.execute(statement)
        else:
            cursor = self._driver.execute(statement.replace("%", "%%").replace("?", "%s"), parameters)
        return cursor.fetchall() if cursor.description is not None else []

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()

    @contextmanager
    def _transaction(self, how: str, then: str = "") -> Iterator[None]:
        with self._connection.begin():
            self._driver.execute(f"BEGIN {how}; {OPEN}{then}")
            yield


def _table(name: str, found: Sequence[tuple[str, str, int]]) -> Table:
    columns = [Column(column, _kind(name, column, type_)) for column, type_, _ in found]
    key = sorted((place, column) for column, _, place in found if place >= 0)
    return table(name, columns, [column for _, column in key])


def _kind(table: str, column: str, type_: str) -> Kind:
    """PostgreSQL calls a boolean `bool`."""
    if type_ in ("halfvec", "vector"):
        return "vector"
    return KINDS.get("boolean" if type_ == "bool" else type_, "plain")


def _to_wire(row: Row, vectors: Sequence[int]) -> list[Any]:
    sent = list(row)
    for place in vectors:
        sent[place] = to_wire(sent[place])
    return sent
