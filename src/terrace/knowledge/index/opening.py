"""From a database to the index that belongs to it."""

from terrace.knowledge.health.base import InspectedIndex
from terrace.knowledge.index.sqlite import SQLiteIndex
from terrace.storage.database import Database


def open_index(database: Database) -> InspectedIndex:
    if database.dialect == "postgresql":
        from terrace.knowledge.index.postgres import PostgresIndex

        return PostgresIndex(database)
    return SQLiteIndex(database)
