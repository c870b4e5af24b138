"""Opens the database of a data folder: backed up before it is migrated, refused when newer than the code."""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from sqlmodel import Session

from terrace.errors import Invalid, Unavailable
from terrace.settings import Settings
from terrace.storage import migrate
from terrace.storage.database import Database
from terrace.storage.sqlite import SQLiteDatabase

PREFIX = "sqlite:///"
POSTGRESQL = ("postgresql:", "postgres:", "postgresql+psycopg:")


async def open_database(settings: Settings) -> Database:
    """The database, at this version's schema.

    Raises Invalid for a URL we do not know, Conflict when the database is newer than this code, Internal when a
    migration fails (the database is then as it was), Unavailable when it is away, or its file or backup cannot be
    written.
    """
    check_database_url(settings.database_url)
    if settings.database_url.startswith(PREFIX):
        return await _sqlite(settings, Path(settings.database_url.removeprefix(PREFIX)))
    return await _postgresql(settings)


def check_database_url(url: str) -> None:
    """Raises Invalid for what is no address of a database."""
    if url.startswith(POSTGRESQL):
        from terrace.storage.postgresql.engine import parsed

        parsed(url)
    elif not url.startswith(PREFIX):
        raise Invalid(
            f"storage.url must begin with {PREFIX}, such as {PREFIX}/var/lib/terrace/terrace.db, or with "
            "postgresql://, such as postgresql://user:password@host:5432/database.",
            code="bad_setting",
        )


async def _sqlite(settings: Settings, path: Path) -> Database:
    back_up(path, settings.data / "backups")
    try:
        database = SQLiteDatabase(path, readers=settings.storage.readers, durability=settings.storage.durability)
    except OSError as error:
        raise Unavailable(f"The folder of {path} cannot be made: {error.strerror}.", code="unwritable") from error
    return await _migrated(database, lambda session: migrate.migrate(session.connection()))


async def _postgresql(settings: Settings) -> Database:
    from terrace.storage.postgresql import PostgreSQLDatabase
    from terrace.storage.postgresql.errors import reason
    from terrace.storage.postgresql.migrating import migrate_once

    database = PostgreSQLDatabase(
        settings.database_url,
        connections=settings.storage.connections,
        listen_url=settings.storage.listen_url,
        row_security=settings.storage.row_security,
    )
    try:
        return await _migrated(database, migrate_once)
    except Unavailable as error:
        if error.code != "database_unreachable":
            raise
        raise Unavailable(
            f"The database of storage.url cannot be reached: {reason(error)}", code=error.code, retry_after=1
        ) from error


async def _migrated(database: Database, work: Callable[[Session], None]) -> Database:
    try:
        await database.write(work)
    except BaseException:
        await database.close()
        raise
    return database


def back_up(path: Path, folder: Path) -> Path | None:
    """Copy a database that a migration is about to change; None when there is nothing to migrate or to lose."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            revision = _revision(connection)
            if revision is None or revision >= migrate.head():
                return None
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            copy = folder / f"terrace-{revision}.db"
            part = folder / f"terrace-{revision}.part"
            part.unlink(missing_ok=True)
            connection.execute("VACUUM INTO ?", (str(part),))
            os.replace(part, copy)
            return copy
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(
            f"The database could not be copied to {folder} before its migration, so nothing was changed: {error}.",
            code="backup_failed",
        ) from error


def _revision(connection: sqlite3.Connection) -> str | None:
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'")
    if known.fetchone() is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])
