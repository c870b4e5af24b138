"""Where everything is kept: one database, one blob store. Rooms pass in work; transactions live here."""

from terrace.storage.blobs import Blobs, FolderBlobs, MemoryBlobs, open_blobs
from terrace.storage.database import Database, after_commit, as_owner, every_tenant, in_bulk, own_locks
from terrace.storage.opening import open_database
from terrace.storage.sqlite import SQLiteDatabase

__all__ = [
    "Blobs",
    "Database",
    "FolderBlobs",
    "MemoryBlobs",
    "SQLiteDatabase",
    "after_commit",
    "as_owner",
    "every_tenant",
    "in_bulk",
    "open_blobs",
    "open_database",
    "own_locks",
]
