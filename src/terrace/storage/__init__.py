"""Where everything is kept: one database, one blob store. Rooms pass in work; transactions live here."""

from terrace.storage.database import Database, after_commit
from terrace.storage.sqlite import SQLiteDatabase

__all__ = ["Database", "SQLiteDatabase", "after_commit"]
