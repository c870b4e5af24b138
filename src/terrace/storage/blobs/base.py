"""Where files are kept. A blob is whole or absent; a key is relative, like `acme/documents/doc_1`.

async with blobs.writer(key, limit=200 * MB) as writer:
    async for piece in upload:
        await writer.write(piece)
stored = writer.stored  # bytes and SHA-256
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from terrace.errors import Invalid, Missing

PIECE = 256 * 1024  # bytes read at a time
MAX_KEY_CHARS = 500
STALE_SECONDS = 86_400.0  # half-written blobs are left alone so long
LINK_SECONDS = 300  # how long a link to a blob is good

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class Stored:
    bytes: int
    sha256: str  # hexadecimal


@dataclass(frozen=True, slots=True)
class Blob:
    key: str
    bytes: int
    modified_at: float  # seconds since the epoch


class Writer(Protocol):
    """Takes a blob piece by piece."""

    @property
    def stored(self) -> Stored:
        """What was written so far; final once the context has ended."""

    async def write(self, piece: bytes) -> None:
        """Raises Invalid (413) once the limit is passed, Unavailable when the disk is full."""


class Blobs(Protocol):
    """Every method raises Invalid for a bad key, and Missing where the blob must be there."""

    def writer(self, key: str, *, limit: int | None = None) -> AbstractAsyncContextManager[Writer]:
        """The blob appears, whole and durable, when the context ends well; after an error nothing stays."""

    async def put(self, key: str, pieces: AsyncIterable[bytes] | bytes, *, limit: int | None = None) -> Stored:
        """Write it all. An existing blob is replaced."""

    async def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes [start, end)."""

    def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes [start, end) in pieces."""

    def local(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A file with the blob's content, to read, as long as the context lasts."""

    async def size(self, key: str) -> int: ...

    async def exists(self, key: str) -> bool: ...

    async def delete(self, key: str) -> bool:
        """Whether it was there."""

    def list(self, prefix: str = "") -> AsyncIterator[Blob]:
        """Every blob whose key begins with `prefix`, in the order of keys."""

    async def link(self, key: str, *, name: str, media_type: str) -> str | None:
        """An address anybody may fetch the blob from for a few minutes, saved as `name`; None where there is none to
        give and the blob must be streamed."""

    async def sweep(self) -> int:
        """Remove halves that a dead process left; returns how many. A day's grace spares uploads under way."""

    async def close(self) -> None: ...


def is_key(key: str) -> bool:
    return len(key) <= MAX_KEY_CHARS and _KEY.fullmatch(key) is not None


def checked(key: str) -> str:
    if not is_key(key):
        raise Invalid("A blob's key is made of letters, digits and . _ - with / between.", code="bad_blob_key")
    return key


class Sum:
    """Counts and hashes what arrives."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._hash = hashlib.sha256()
        self._bytes = 0

    @property
    def stored(self) -> Stored:
        return Stored(self._bytes, self._hash.hexdigest())

    def add(self, piece: bytes) -> None:
        self.count(piece)
        self.hash(piece)

    def count(self, piece: bytes) -> None:
        """Raises Invalid (413) once the limit is passed."""
        self._bytes += len(piece)
        if self._limit is not None and self._bytes > self._limit:
            raise Invalid(
                f"The file is larger than the {self._limit:,} bytes allowed.",
                code="file_too_large",
                status=413,
                limit=self._limit,
            )

    def hash(self, piece: bytes) -> None:
        self._hash.update(piece)


class Reads(ABC):
    """What all kinds do alike on top of `writer` and `stream`."""

    @abstractmethod
    def writer(self, key: str, *, limit: int | None = None) -> AbstractAsyncContextManager[Writer]: ...

    @abstractmethod
    def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]: ...

    async def put(self, key: str, pieces: AsyncIterable[bytes] | bytes, *, limit: int | None = None) -> Stored:
        async with self.writer(key, limit=limit) as writer:
            if isinstance(pieces, bytes):
                await writer.write(pieces)
            else:
                async for piece in pieces:
                    await writer.write(piece)
        return writer.stored

    async def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return b"".join([piece async for piece in self.stream(key, start=start, end=end)])

    async def link(self, key: str, *, name: str, media_type: str) -> str | None:
        checked(key)
        return None

    async def sweep(self) -> int:
        return 0

    async def close(self) -> None:
        return None


def missing() -> Missing:
    return Missing("The file is not there (any more).", code="no_such_blob")
