"""What all migrations make of an empty SQLite file, written down: a first start need not run them, nor load Alembic.

`make schema` writes it anew after a migration was added.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection

FILE = Path(__file__).parent / "migrations" / "sqlite.sql"
HEAD = "-- "  # before the revision, on the first line
SCHEMA = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"


def revision() -> str:
    """Up to which migration it goes."""
    with FILE.open() as file:
        return file.readline().removeprefix(HEAD).strip()


def make(connection: Connection) -> None:
    """The whole schema, in the caller's transaction."""
    for statement in _statements(FILE.read_text()):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (revision(),))


def written(connection: Connection) -> str:
    """The file's text, of a database that the migrations have made."""
    newest = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    lines = [f"{HEAD}{newest}"]
    for statement in connection.exec_driver_sql(SCHEMA).scalars():
        lines += [" ".join(line.strip() for line in statement.splitlines()).rstrip("; ") + ";"]
    return "\n".join(lines) + "\n"


def _statements(script: str) -> Iterator[str]:
    """A trigger holds semicolons of its own."""
    statement = ""
    for line in script.splitlines():
        if line.startswith(HEAD):
            continue
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def write() -> None:
    """The file, from a database that the migrations make now."""
    from terrace.storage import migrate
    from terrace.storage.sqlite import engine_for

    with tempfile.TemporaryDirectory() as folder, engine_for(Path(folder) / "terrace.db").begin() as connection:
        migrate.migrate(connection, migrate.head())
        FILE.write_text(written(connection))
