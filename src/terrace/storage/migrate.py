"""Bring a database to this version's schema, in one transaction; a failure leaves it as it was and stops the start."""

from pathlib import Path

from sqlalchemy import Connection, inspect

from terrace.errors import Conflict, Internal, Invalid
from terrace.storage import snapshot

MIGRATIONS = Path(__file__).parent / "migrations"
UNFINISHED = "moving"  # what the schema of a database calls itself while rows are being moved into it


def head(folder: Path = MIGRATIONS) -> str:
    """The newest revision, read off the file names so that a start without changes need not load Alembic."""
    return max(path.name[:4] for path in (folder / "versions").glob("[0-9]*.py"))


def current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def migrate(connection: Connection, target: str = "head", *, folder: Path = MIGRATIONS) -> None:
    """Move the schema up (or down) to `target` (a revision, `head` or `base`) inside the caller's transaction.

    Raises Conflict when the database is newer than this code, Internal when a migration fails.
    """
    at, newest = current(connection), head(folder)
    if target == "head" and at == newest:
        return
    if at == UNFINISHED:
        raise Conflict(
            "Rows are still being moved into this database, so it cannot be used yet. Finish it with `terrace move` or "
            "`terrace restore` and --resume.",
            code="unfinished",
        )
    if at is not None and at > newest:
        raise Conflict(
            f"The database has schema {at}, and this version of Terrace knows only {newest}. "
            "Install the newer version again, or restore the backup made before the upgrade.",
            code="schema_too_new",
        )
    if target == "head" and _may_copy(connection, newest):
        snapshot.make(connection)
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    down = target == "base" or (at is not None and target < at)  # "head" sorts after every number
    move = command.downgrade if down else command.upgrade
    try:
        move(config, target)
    except Exception as error:
        if "extension" in str(error) and connection.dialect.name == "postgresql":
            raise Invalid(
                "The database has no pgvector, and its user may not add it. Install pgvector 0.8 or newer on the "
                "server, and as a superuser say in this database: CREATE EXTENSION vector;",
                code="pgvector_missing",
            ) from error
        raise Internal(
            f"Migrating the database from {at or 'empty'} to {target} failed and was rolled back: {error}",
            code="migration_failed",
        ) from error
    if connection.dialect.name == "postgresql" and not down:
        from terrace.storage.postgresql import security

        security.secure(connection)


def _may_copy(connection: Connection, newest: str) -> bool:
    """Whether the database is an empty one of SQLite, and the schema written down is this version's."""
    if connection.dialect.name != "sqlite" or inspect(connection).get_table_names():
        return False
    return snapshot.revision() == newest
