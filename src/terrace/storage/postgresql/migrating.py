"""Migrations of a database that several processes may open at the same moment."""

from pathlib import Path

from sqlmodel import Session

from terrace.storage import migrate
from terrace.storage.database import as_owner, own_locks

LOCK = 5_482_001_837_264_019_113  # an advisory lock that is nobody else's


@own_locks
@as_owner
def migrate_once(session: Session, target: str = "head", *, folder: Path = migrate.MIGRATIONS) -> None:
    """The first migrates; whoever comes meanwhile waits, and finds nothing to do."""
    connection = session.connection()
    if target == "head" and migrate.current(connection) == migrate.head(folder):
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    migrate.migrate(connection, target, folder=folder)
