"""A backup of a running installation: one tar file with the database as SQLite, every file, and a signed manifest.

The database is one moment's. Files are taken before it and, those that are new or changed, again after it: whatever
the database refers to was there at that moment, and is in the backup. Documents that came after the first time and went
before the second are left out.
"""

import asyncio
import hashlib
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from terrace import __version__
from terrace.accounts.secret import Secret
from terrace.errors import Conflict, Missing, Unavailable
from terrace.moving.databases import checked_schema
from terrace.moving.departed import lacking, leave_out
from terrace.moving.manifest import Manifest, encode, signed
from terrace.moving.places import Place, open_index, open_side
from terrace.moving.sides.failing import guarded
from terrace.moving.sums import Sum, Told, sums_of
from terrace.moving.syncing import Syncing
from terrace.moving.texts import NoTexts
from terrace.storage import Blobs
from terrace.storage.migrate import head
from terrace.types import new_id, now

DATABASE = "database.db"
MANIFEST = "manifest.json"
SECRET = "secret"
FILES = "files/"
SPOOL = 8 * 1024 * 1024  # bytes of a file held in memory on its way
PIECE = 1024 * 1024
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Backup:
    path: Path
    id: str
    bytes: int
    rows: int
    files: int
    secret: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Entry:
    bytes: int
    sha256: str


class Backing:
    """`secret_file`: where the installation's secret is, if the backup shall hold it."""

    def __init__(self, database: Place, blobs: Blobs, secret: Secret, secret_file: Path | None, told: Told) -> None:
        self._database = database
        self._blobs = blobs
        self._secret = secret
        self._secret_file = secret_file
        self._told = told
        self._entries: dict[str, Entry] = {}
        self._modified: dict[str, float] = {}

    async def write(self, path: Path) -> Backup:
        """`path` appears, readable by its owner alone, when it is whole. Raises Conflict when it is there already."""
        _unused(path)
        began = time.monotonic()
        part = path.with_name(f"{path.name}.part")
        try:
            with tempfile.TemporaryDirectory(prefix=".terrace-backup-", dir=path.parent) as folder:
                with _private(part) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    tables = await self._fill(archive, Path(folder))
                    manifest = self._manifest(tables)
                    await asyncio.to_thread(_add_bytes, archive, MANIFEST, encode(manifest))
                await asyncio.to_thread(_settle, part, path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror}.", code="unwritable") from error
        finally:
            part.unlink(missing_ok=True)
        return Backup(
            path,
            manifest["id"],
            rows=sum(each.rows for each in tables.values()),
            files=sum(name.startswith(FILES) for name in self._entries),
            bytes=sum(each.bytes for each in self._entries.values()),
            secret=manifest["secret"],
            seconds=time.monotonic() - began,
        )

    async def _fill(self, archive: tarfile.TarFile, folder: Path) -> dict[str, Sum]:
        if self._secret_file is not None:
            content = self._secret_file.read_bytes()
            self._entries[SECRET] = await asyncio.to_thread(_add_bytes, archive, SECRET, content)
        await self._add_files(archive)
        copy = folder / DATABASE
        await asyncio.to_thread(guarded, self._copy_database, copy)
        await self._add_files(archive)
        await self._leave_out(Place(f"sqlite:///{copy}", "sqlite"))
        tables = await asyncio.to_thread(guarded, self._summed, copy)
        self._told("database written", 0, 1)
        self._entries[DATABASE] = await asyncio.to_thread(_add_file, archive, DATABASE, copy)
        copy.unlink()
        return tables

    async def _add_files(self, archive: tarfile.TarFile) -> None:
        listed = [each async for each in self._blobs.list() if self._modified.get(each.key) != each.modified_at]
        for done, blob in enumerate(listed, 1):
            try:
                with tempfile.SpooledTemporaryFile(SPOOL) as spool:
                    async for piece in self._blobs.stream(blob.key):
                        await asyncio.to_thread(spool.write, piece)
                    entry = await asyncio.to_thread(_add_spool, archive, f"{FILES}{blob.key}", spool)
            except Missing:  # deleted meanwhile
                continue
            self._entries[f"{FILES}{blob.key}"] = entry
            self._modified[blob.key] = blob.modified_at
            self._told("files written", done, len(listed))

    async def _leave_out(self, copy: Place) -> None:
        files = {name.removeprefix(FILES) for name in self._entries}
        if documents := await asyncio.to_thread(guarded, lacking, copy, files):
            async with open_index(copy) as (_, index):
                await asyncio.to_thread(guarded, leave_out, copy, self._database, index, documents)

    def _copy_database(self, copy: Path) -> None:
        """One moment's, as a SQLite file; reads and writes go on."""
        with closing(open_side(self._database)) as source, source.snapshot():
            checked_schema(source, self._database)
        if self._database.kind == "sqlite":
            with closing(sqlite3.connect(self._database.path)) as here, closing(sqlite3.connect(copy)) as there:
                here.backup(there, pages=-1)
                there.execute("PRAGMA journal_mode = DELETE")
        else:
            self._copy_rows(copy)
        os.chmod(copy, 0o600)

    def _summed(self, copy: Path) -> dict[str, Sum]:
        with closing(open_side(Place(f"sqlite:///{copy}", "sqlite"))) as side:
            sums = sums_of(side, side.tables(), self._told, "summed")
        with closing(sqlite3.connect(copy)) as there:
            there.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        return sums

    def _copy_rows(self, copy: Path) -> None:
        with (
            closing(open_side(self._database)) as source,
            closing(open_side(Place(f"sqlite:///{copy}", "sqlite"), make=True)) as there,
        ):
            with there.writing():
                there.migrate()
            with source.snapshot():
                Syncing(source, there, NoTexts(), self._told).run()

    def _manifest(self, tables: dict[str, Sum]) -> Manifest:
        return signed(
            {
                "kind": "backup",
                "format": FORMAT,
                "id": new_id("bak"),
                "terrace": __version__,
                "schema": head(),
                "made_at": now(),
                "secret": SECRET in self._entries,
                "tables": {name: asdict(each) for name, each in tables.items()},
                "entries": {name: asdict(each) for name, each in self._entries.items()},
            },
            self._secret,
        )


def _unused(path: Path) -> None:
    if path.exists():
        raise Conflict(f"{path} is there already. Name another file.", code="file_exists")


def _private(path: Path) -> IO[bytes]:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _settle(part: Path, path: Path) -> None:
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> Entry:
    import io

    return _add(archive, name, io.BytesIO(content), len(content), hashlib.sha256(content).hexdigest())


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> Entry:
    with path.open("rb") as file:
        return _add_spool(archive, name, file)


def _add_spool(archive: tarfile.TarFile, name: str, file: Any) -> Entry:
    found, size = hashlib.sha256(), 0
    file.seek(0)
    for piece in _pieces(file):
        found.update(piece)
        size += len(piece)
    file.seek(0)
    return _add(archive, name, file, size, found.hexdigest())


def _add(archive: tarfile.TarFile, name: str, file: Any, size: int, sha256: str) -> Entry:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    archive.addfile(member, file)
    return Entry(size, sha256)


def _pieces(file: Any) -> Iterable[bytes]:
    while piece := file.read(PIECE):
        yield piece
