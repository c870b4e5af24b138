"""Blobs as files in a folder."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from terrace.errors import Conflict, Invalid, Missing, TerraceError, Unavailable
from terrace.storage.blobs.base import PIECE, STALE_SECONDS, Blob, Reads, Stored, Sum, Writer, checked, missing

P = ParamSpec("P")
R = TypeVar("R")

BUFFER = 1024 * 1024  # bytes gathered before the disk is touched
PARTS = ".parts"  # half-written blobs live here; the name cannot be a key
PLACE_TRIES = 100


class _FileWriter:
    """Gathers pieces and hands them to a thread, so that neither hashing nor the disk holds up the event loop."""

    def __init__(self, file: IO[bytes], limit: int | None) -> None:
        self._file = file
        self._sum = Sum(limit)
        self._pieces: list[bytes] = []
        self._gathered = 0

    @property
    def stored(self) -> Stored:
        return self._sum.stored

    async def write(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._gathered += len(piece)
        if self._gathered >= BUFFER:
            await on_disk(self._flush)

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


class FolderBlobs(Reads):
    """Blobs as files below `root`. A blob is written aside, flushed to the disk and renamed into its place."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def check(self) -> None:
        """Raises Invalid when nothing could be kept there. It is not made before something is."""
        await asyncio.to_thread(self._check)

    @asynccontextmanager
    async def writer(self, key: str, *, limit: int | None = None) -> AsyncGenerator[Writer, None]:
        target = self._path(key)
        file = await on_disk(self._part)
        writer = _FileWriter(file, limit)
        try:
            yield writer
            await on_disk(writer.finish, target)
        except BaseException:
            _discard(file)
            raise

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        file = await on_disk(self._open, self._path(key))
        try:
            file.seek(start)
            left = PIECE if end is None else max(0, end - start)
            while left and (piece := await on_disk(file.read, min(PIECE, left))):
                yield piece
                left -= 0 if end is None else len(piece)
        finally:
            file.close()

    @asynccontextmanager
    async def local(self, key: str) -> AsyncGenerator[Path, None]:
        if not await self.exists(key):
            raise missing()
        yield self._path(key)

    async def size(self, key: str) -> int:
        try:
            return (await on_disk(self._path(key).stat)).st_size
        except Missing:
            raise missing() from None

    async def exists(self, key: str) -> bool:
        return await on_disk(self._path(key).is_file)

    async def delete(self, key: str) -> bool:
        return await on_disk(self._delete, self._path(key))

    async def list(self, prefix: str = "") -> AsyncGenerator[Blob, None]:
        for blob in await on_disk(self._list, prefix):
            yield blob

    async def sweep(self) -> int:
        return await on_disk(self._sweep, time.time() - STALE_SECONDS)

    def _check(self) -> None:
        there = next(each for each in (self.root, *self.root.parents) if os.path.lexists(each))
        if not there.is_dir():
            why = f"{there} is no folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            why = f"nothing may be written to {there}"
        else:
            return
        raise Invalid(
            f"Files cannot be kept in {self.root}: {why}. Name another folder in storage.blobs.", code="bad_setting"
        )

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


async def on_disk(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """In a thread, with what the system says told in our own words."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise _told(error) from error


def _told(error: OSError) -> TerraceError:
    import errno

    if isinstance(error, FileNotFoundError):
        return missing()
    if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)):
        return Conflict("A blob's key is the beginning of another's.", code="blob_key_taken")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Unavailable("The disk is full. Free some space; nothing half-done was kept.", code="disk_full")
    return Unavailable(f"The files cannot be reached: {error.strerror or 'unknown reason'}.", code="blobs_unavailable")
