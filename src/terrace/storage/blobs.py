"""Where files are kept: a folder, or memory. A blob is whole or absent; a key is relative, like `acme/documents/doc_1`.

async with blobs.writer(key, limit=200 * MB) as writer:
    async for piece in upload:
        await writer.write(piece)
stored = writer.stored  # bytes and SHA-256
"""

import asyncio
import hashlib
import os
import re
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ParamSpec, Protocol, TypeVar

from terrace.errors import Conflict, Invalid, Missing, TerraceError, Unavailable

P = ParamSpec("P")
R = TypeVar("R")

PIECE = 256 * 1024  # bytes read at a time
BUFFER = 1024 * 1024  # bytes gathered before the disk is touched
MAX_KEY_CHARS = 500
PARTS = ".parts"  # half-written blobs live here; the name cannot be a key
STALE_SECONDS = 86_400.0
PLACE_TRIES = 100

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


def checked(key: str) -> str:
    if len(key) > MAX_KEY_CHARS or not _KEY.fullmatch(key):
        raise Invalid("A blob's key is made of letters, digits and . _ - with / between.", code="bad_blob_key")
    return key


class _Sum:
    """Counts and hashes what arrives."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._hash = hashlib.sha256()
        self._bytes = 0

    @property
    def stored(self) -> Stored:
        return Stored(self._bytes, self._hash.hexdigest())

    def add(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if self._limit is not None and self._bytes > self._limit:
            raise Invalid(
                f"The file is larger than the {self._limit:,} bytes allowed.",
                code="file_too_large",
                status=413,
                limit=self._limit,
            )
        self._hash.update(piece)


class _Reads(ABC):
    """What both kinds do alike on top of `writer` and `stream`."""

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


# -- in memory


class _MemoryWriter:
    def __init__(self, limit: int | None) -> None:
        self._sum = _Sum(limit)
        self.content = bytearray()

    @property
    def stored(self) -> Stored:
        return self._sum.stored

    async def write(self, piece: bytes) -> None:
        self._sum.add(piece)
        self.content += piece


class MemoryBlobs(_Reads):
    """For tests, and for a server that shall leave nothing behind."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[bytes, float]] = {}

    @asynccontextmanager
    async def writer(self, key: str, *, limit: int | None = None) -> AsyncGenerator[Writer, None]:
        checked(key)
        writer = _MemoryWriter(limit)
        yield writer
        self._blobs[key] = (bytes(writer.content), time.time())

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        content = memoryview(self._get(key))[start:end]
        for at in range(0, len(content), PIECE):
            yield bytes(content[at : at + PIECE])

    @asynccontextmanager
    async def local(self, key: str) -> AsyncGenerator[Path, None]:
        with tempfile.NamedTemporaryFile() as file:
            file.write(self._get(key))
            file.flush()
            yield Path(file.name)

    async def size(self, key: str) -> int:
        return len(self._get(key))

    async def exists(self, key: str) -> bool:
        return checked(key) in self._blobs

    async def delete(self, key: str) -> bool:
        return self._blobs.pop(checked(key), None) is not None

    async def list(self, prefix: str = "") -> AsyncGenerator[Blob, None]:
        for key in sorted(self._blobs):
            if key.startswith(prefix):
                content, modified_at = self._blobs[key]
                yield Blob(key, len(content), modified_at)

    def _get(self, key: str) -> bytes:
        if checked(key) not in self._blobs:
            raise _missing()
        return self._blobs[key][0]


# -- in a folder


class _FileWriter:
    """Gathers pieces and hands them to a thread, so that neither hashing nor the disk holds up the event loop."""

    def __init__(self, file: IO[bytes], limit: int | None) -> None:
        self._file = file
        self._sum = _Sum(limit)
        self._pieces: list[bytes] = []
        self._gathered = 0

    @property
    def stored(self) -> Stored:
        return self._sum.stored

    async def write(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._gathered += len(piece)
        if self._gathered >= BUFFER:
            await _on_disk(self._flush)

    def _flush(self) -> None:
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        for piece in pieces:
            self._sum.add(piece)
            self._file.write(piece)

    def finish(self, target: Path) -> None:
        self._flush()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        _place(self._file.name, target)


class FolderBlobs(_Reads):
    """Blobs as files below `root`. A blob is written aside, flushed to the disk and renamed into its place."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @asynccontextmanager
    async def writer(self, key: str, *, limit: int | None = None) -> AsyncGenerator[Writer, None]:
        target = self._path(key)
        file = await _on_disk(self._part)
        writer = _FileWriter(file, limit)
        try:
            yield writer
            await _on_disk(writer.finish, target)
        except BaseException:
            _discard(file)
            raise

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        file = await _on_disk(self._open, self._path(key))
        try:
            file.seek(start)
            left = PIECE if end is None else max(0, end - start)
            while left and (piece := await _on_disk(file.read, min(PIECE, left))):
                yield piece
                left -= 0 if end is None else len(piece)
        finally:
            file.close()

    @asynccontextmanager
    async def local(self, key: str) -> AsyncGenerator[Path, None]:
        if not await self.exists(key):
            raise _missing()
        yield self._path(key)

    async def size(self, key: str) -> int:
        try:
            return (await _on_disk(self._path(key).stat)).st_size
        except Missing:
            raise _missing() from None

    async def exists(self, key: str) -> bool:
        return await _on_disk(self._path(key).is_file)

    async def delete(self, key: str) -> bool:
        return await _on_disk(self._delete, self._path(key))

    async def list(self, prefix: str = "") -> AsyncGenerator[Blob, None]:
        for blob in await _on_disk(self._list, prefix):
            yield blob

    async def sweep(self) -> int:
        """Remove halves that a dead process left; returns how many. A day's grace spares uploads under way."""
        return await _on_disk(self._sweep, time.time() - STALE_SECONDS)

    def _path(self, key: str) -> Path:
        return self.root / checked(key)

    def _part(self) -> IO[bytes]:
        parts = self.root / PARTS
        parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        return tempfile.NamedTemporaryFile(dir=parts, delete=False)

    def _open(self, path: Path) -> IO[bytes]:
        return path.open("rb")

    def _delete(self, path: Path) -> bool:
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        for folder in path.parents:  # empty ones go with it
            if folder == self.root:
                break
            try:
                folder.rmdir()
            except OSError:
                break
        return True

    def _list(self, prefix: str) -> Sequence[Blob]:
        found = []
        for path in self.root.rglob("*"):
            key = path.relative_to(self.root).as_posix()
            if not key.startswith(PARTS) and key.startswith(prefix):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    if path.is_file():
                        stat = path.stat()
                        found.append(Blob(key, stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda blob: blob.key)

    def _sweep(self, before: float) -> int:
        removed = 0
        for path in (self.root / PARTS).glob("*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
        return removed


def _place(source: str, target: Path) -> None:
    """Rename into a folder that a `delete` of its last blob may be removing in this very moment."""
    for left in reversed(range(PLACE_TRIES)):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
            _sync_folder(target.parent)
            return
        except (FileNotFoundError, FileExistsError):  # what `mkdir` raises when the folder goes in its midst
            if not left:
                raise


def _discard(file: IO[bytes]) -> None:
    """Not awaited, so that it happens even when the task is being cancelled."""
    with suppress(OSError):
        file.close()  # may fail on a full disk, with what it still buffers
    with suppress(OSError):
        os.unlink(file.name)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable (POSIX asks for the folder to be flushed too)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def _on_disk(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise _told(error) from error


def _told(error: OSError) -> TerraceError:
    import errno

    if isinstance(error, FileNotFoundError):
        return _missing()
    if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)):
        return Conflict("A blob's key is the beginning of another's.", code="blob_key_taken")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Unavailable("The disk is full. Free some space; nothing half-done was kept.", code="disk_full")
    return Unavailable(f"The files cannot be reached: {error.strerror or 'unknown reason'}.", code="blobs_unavailable")


def _missing() -> Missing:
    return Missing("The file is not there (any more).", code="no_such_blob")
