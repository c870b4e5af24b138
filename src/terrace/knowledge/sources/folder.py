"""A folder of this machine: looked through and read without ever following a link, so that nothing outside it is taken,
whatever is exchanged while we look.

Every step goes from an open folder to a name in it (`openat` with O_NOFOLLOW), never along a path a second time.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from terrace.errors import Conflict, Invalid
from terrace.knowledge.sources.patterns import wanted
from terrace.types import DEFAULT_TENANT, Scope

PIECE = 256 * 1024
MAX_FILES = 200_000
MAX_DEPTH = 60
TENANT = "{tenant}"
UNFINISHED = ("~$*", "*~", "*.tmp", "*.part", "*.crdownload", "*.swp", "*.partial", "*.download")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hold us up


@dataclass(frozen=True, slots=True)
class Found:
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Scan:
    """`unreadable` and `links` are what was there and not looked into; with the first, the listing is not whole."""

    files: dict[str, Found] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    links: int = 0
    unnamed: int = 0
    too_many: bool = False

    @property
    def whole(self) -> bool:
        return not self.unreadable and not self.too_many

    @property
    def fingerprint(self) -> str:
        digest = sha256()
        for path in sorted(self.files):
            found = self.files[path]
            digest.update(f"{path}\0{found.size}\0{found.mtime_ns}\0".encode())
        return digest.hexdigest()


def allowed_root(scope: Scope, folders: Sequence[Path], location: str) -> tuple[Path, Path]:
    """(the allowed folder, the wanted one in it), both real paths. Raises Invalid for any other.

    An allowed folder with `{tenant}` in it is each tenant's own; one without is the first tenant's.
    """
    if "\0" in location or not os.path.isabs(os.path.expanduser(location)):
        raise Invalid("Name the folder by its whole path, such as /srv/documents.", code="bad_folder")
    wanted_folder = Path(os.path.realpath(os.path.expanduser(location)))
    for each in folders:
        if TENANT in str(each):
            each = Path(str(each).replace(TENANT, scope.tenant))
        elif scope.tenant != DEFAULT_TENANT:
            continue
        root = Path(os.path.realpath(each.expanduser()))
        if wanted_folder == root or root in wanted_folder.parents:
            return root, wanted_folder
    raise Invalid(
        "This folder may not be read: the operator names those that may be in TERRACE_SCHEDULES__FOLDERS.",
        code="folder_not_allowed",
    )


@contextmanager
def opened(root: Path, folder: Path) -> Iterator[int]:
    """The folder as a descriptor. Raises OSError when it is gone, closed to us, or a link stands in its way."""
    descriptor = os.open(root, _FOLDER)
    try:
        for name in folder.relative_to(root).parts:
            inner = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def scan(root: Path, folder: Path, include: Sequence[str], exclude: Sequence[str]) -> Scan:
    """Regular files that the patterns want; hidden and half-written ones are left out. Raises OSError."""
    result = Scan()
    with opened(root, folder) as top:
        waiting: list[tuple[str, ...]] = [()]
        while waiting and not result.too_many:
            parts = waiting.pop()
            try:
                waiting.extend(_look(top, parts, include, (*exclude, *UNFINISHED), result))
            except OSError:
                if not parts:
                    raise
                result.unreadable.append("/".join(parts))
    return result


def _look(
    top: int, parts: tuple[str, ...], include: Sequence[str], exclude: Sequence[str], result: Scan
) -> list[tuple[str, ...]]:
    """Takes in one folder's files; the folders in it."""
    inner = []
    with _beneath(top, parts) as descriptor, os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_text(entry.name):
                result.unnamed += 1
                continue
            if entry.is_symlink():
                result.links += 1
            elif entry.is_dir(follow_symlinks=False):
                if len(parts) < MAX_DEPTH:
                    inner.append((*parts, entry.name))
                else:
                    result.unreadable.append("/".join((*parts, entry.name)))
            elif entry.is_file(follow_symlinks=False):
                _take(entry, "/".join((*parts, entry.name)), include, exclude, result)
    return inner


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _take(entry: "os.DirEntry[str]", path: str, include: Sequence[str], exclude: Sequence[str], result: Scan) -> None:
    if not wanted(path, include, exclude):
        return
    if len(result.files) >= MAX_FILES:
        result.too_many = True
        return
    with suppress(FileNotFoundError):  # gone since it was listed: then it isn't there
        seen = entry.stat(follow_symlinks=False)
        result.files[path] = Found(seen.st_size, seen.st_mtime_ns)


@contextmanager
def _beneath(top: int, parts: Sequence[str]) -> Iterator[int]:
    descriptor = os.dup(top)
    try:
        for name in parts:
            inner = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def looked_at(root: Path, folder: Path, path: str) -> Found | None:
    """How a file is now; None when there is no such regular file."""
    try:
        with opened(root, folder) as top, _beneath(top, path.split("/")[:-1]) as place:
            seen = os.stat(path.split("/")[-1], dir_fd=place, follow_symlinks=False)
    except OSError:
        return None
    return Found(seen.st_size, seen.st_mtime_ns) if stat.S_ISREG(seen.st_mode) else None


class StillWritten(Conflict):
    """The file changed while it was read."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is still being written; it is taken when it rests.", code="still_written")


async def pieces(root: Path, folder: Path, path: str, expected: Found) -> AsyncIterator[bytes]:
    """A file's bytes. Raises StillWritten unless it is, from the first to the last, what was `expected`."""
    descriptor = await asyncio.to_thread(_open, root, folder, path)
    try:
        if _state(descriptor) != expected:
            raise StillWritten(path)
        while piece := await asyncio.to_thread(os.read, descriptor, PIECE):
            yield piece
        if _state(descriptor) != expected:
            raise StillWritten(path)
    finally:
        os.close(descriptor)


def _open(root: Path, folder: Path, path: str) -> int:
    try:
        with opened(root, folder) as top, _beneath(top, path.split("/")[:-1]) as place:
            return os.open(path.split("/")[-1], _FILE, dir_fd=place)
    except OSError as error:
        raise Invalid(f"{path} can't be read: {error.strerror}.", code="unreadable") from error


def _state(descriptor: int) -> Found | None:
    seen = os.fstat(descriptor)
    return Found(seen.st_size, seen.st_mtime_ns) if stat.S_ISREG(seen.st_mode) else None
