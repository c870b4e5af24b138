"""A SQLite file as one side of a move."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlmodel import Session

from terrace.moving.sides.base import Column, Key, Row, Table, among, beyond, is_moved, ordered, quoted, table, upsert
from terrace.storage import migrate
from terrace.storage.sqlite import engine_for

HOLD_SECONDS = 30.0  # how long we wait for those who are writing


class SQLiteSide:
    dialect = "sqlite"

    def __init__(self, path: Path, *, durability: str = "full") -> None:
        self.path = path
        self._connection = engine_for(path, durability=durability).connect()
        driver = self._connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver
        self._driver.execute("PRAGMA cache_size = -64000")
        self._tables: list[Table] | None = None

    def version(self) -> str | None:
        if not self.run("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"):
            return None
        found = self.run("SELECT version_num FROM alembic_version")
        return str(found[0][0]) if found else None

    def tables(self) -> Sequence[Table]:
        if self._tables is None:
            names = [name for (name,) in self.run("SELECT name FROM sqlite_master WHERE type = 'table'")]
            self._tables = [self._table(name) for name in ordered(filter(is_moved, names), self._points_to)]
        return self._tables

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._driver.execute("BEGIN")
        try:
            yield
        finally:
            self._driver.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._connection.begin():
            self._connection.exec_driver_sql("BEGIN")
            self.run("SELECT count(*) FROM sqlite_master")  # the moment is that of the first reading
            with Session(self._connection, join_transaction_mode="rollback_only") as session:
                yield session

    @contextmanager
    def held(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.path, timeout=HOLD_SECONDS, isolation_level=None)) as holding:
            holding.execute("BEGIN IMMEDIATE")
            with self.snapshot():
                yield

    def stamp(self) -> object:
        return self.run("PRAGMA data_version")[0][0]

    @contextmanager
    def writing(self) -> Iterator[Session]:
        with self._connection.begin():
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
            with Session(self._connection, join_transaction_mode="rollback_only") as session:
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
        # A column of JSON would rather be a number: it is read as the text it was given as.
        what = [f'CAST("{each.name}" AS TEXT)' if each.kind == "json" else f'"{each.name}"' for each in table.columns]
        return self.run(f'SELECT {", ".join(what)} FROM "{table.name}" {which}', parameters)

    def put(self, table: Table, rows: Sequence[Row]) -> None:
        names = [each.name for each in table.columns]
        self._driver.executemany(
            f'INSERT INTO "{table.name}" ({quoted(*names)}) VALUES ({", ".join("?" for _ in names)}) ' + upsert(table),
            rows,
        )

    def delete(self, table: Table, keys: Sequence[Key]) -> None:
        condition = " AND ".join(f'"{name}" = ?' for name in table.key)
        self._driver.executemany(f'DELETE FROM "{table.name}" WHERE {condition}', keys)

    def numbers(self) -> dict[str, int]:
        moved = {each.name for each in self.tables()}
        return {name: int(last) for name, last in self.run("SELECT name, seq FROM sqlite_sequence") if name in moved}

    def set_numbers(self, numbers: dict[str, int]) -> None:
        for name, last in numbers.items():
            if self.run("SELECT 1 FROM sqlite_sequence WHERE name = ?", (name,)):
                self.run("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (last, name))
            else:
                self.run("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, last))

    def migrate(self, target: str = "head") -> None:
        migrate.migrate(self._connection, target)

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return self._driver.execute(statement, parameters).fetchall()

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()

    def _table(self, name: str) -> Table:
        columns, key = [], dict[int, str]()
        for _, column, type_, _, _, place in self.run(f'PRAGMA table_info("{name}")'):
            columns.append(Column(column, "json" if type_ == "JSON" else "plain"))
            if place:
                key[place] = column
        return table(name, columns, [key[place] for place in sorted(key)])

    def _points_to(self, name: str) -> list[str]:
        return [row[2] for row in self.run(f'PRAGMA foreign_key_list("{name}")')]
