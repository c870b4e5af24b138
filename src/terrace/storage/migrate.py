"""Bring a database to this version's schema, in one transaction; a failure leaves it as it was and stops the start."""

from pathlib import Path

from sqlalchemy import Connection, inspect

from terrace.errors import Conflict, Internal

MIGRATIONS = Path(__file__).parent / "migrations"


def head() -> str:
    """The newest revision, read off the file names so that a start without changes need not load Alembic."""
    return max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def migrate(connection: Connection, target: str = "head") -> None:
    """Move the schema up (or down) to `target` inside the caller's transaction.

    Raises Conflict when the database is newer than this code, Internal when a migration fails.
    """
    at = current(connection)
    if target == "head" and at == head():
        return
    if at is not None and at > head():
        raise Conflict(
            f"The database has schema {at}, and this version of Terrace knows only {head()}. "
            "Install the newer version again, or restore the backup made before the upgrade.",
            code="schema_too_new",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    move = command.upgrade if target == "head" or at is None or target > at else command.downgrade
    try:
        move(config, target)
    except Exception as error:
        raise Internal(
            f"Migrating the database from {at or 'empty'} to {target} failed and was rolled back: {error}",
            code="migration_failed",
        ) from error
