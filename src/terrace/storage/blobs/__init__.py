"""Where files are kept: a folder, a bucket, or memory."""

from terrace.storage.blobs.base import PIECE, Blob, Blobs, Stored, Writer, checked
from terrace.storage.blobs.folder import PARTS, FolderBlobs
from terrace.storage.blobs.memory import MemoryBlobs
from terrace.storage.blobs.opening import open_blobs

__all__ = [
    "PARTS",
    "PIECE",
    "Blob",
    "Blobs",
    "FolderBlobs",
    "MemoryBlobs",
    "Stored",
    "Writer",
    "checked",
    "open_blobs",
]
