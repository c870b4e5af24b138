"""Opens the database of a data folder: backed up before it is migrated, refused when newer than the code."""

import contextlib
import os
import sqlite3
from pathlib import Path

from terrace.errors import Invalid, Unavailable
from terrace.settings import Settings
from terrace.storage import migrate
from terrace.storage.database import Database
from terrace.storage.sqlite import SQLiteDatabase

PREFIX = "sqlite:///"


async def open_database(settings: Settings) -> Database:
    """The database, at this version's schema.

    Raises Invalid for a URL we do not know, Conflict when the database is newer than this code, Internal when a
    migration fails (the database is then as it was), Unavailable when the file or its backup cannot be written.
    """
    url = settings.database_url
    if not url.startswith(PREFIX):
        raise Invalid(
            f"storage.url must begin with {PREFIX}, such as {PREFIX}/var/lib/terrace/terrace.db.", code="bad_setting"
        )
    path = Path(url.removeprefix(PREFIX))
    back_up(path, settings.data / "backups")
    try:
        database = SQLiteDatabase(path, readers=settings.storage.readers, durability=settings.storage.durability)
    except OSError as error:
        raise Unavailable(f"The folder of {path} cannot be made: {error.strerror}.", code="unwritable") from error
    try:
        await database.write(lambda session: migrate.migrate(session.connection()))
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
