"""A backup brought back into an empty installation: looked through before anything is written, proved after it."""

import asyncio
import hashlib
import os
import shutil
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrace.accounts.secret import Secret
from terrace.errors import Conflict, Internal, Invalid
from terrace.moving.backup import DATABASE, FILES, FORMAT, MANIFEST, PIECE, SECRET
from terrace.moving.databases import DatabaseMove
from terrace.moving.manifest import Manifest, decode, is_genuine, read
from terrace.moving.marks import RESTORED, RESTORING
from terrace.moving.places import Place, open_index, open_side
from terrace.moving.sides.failing import guarded
from terrace.moving.state import empty_of_rows
from terrace.moving.sums import Sum, Told, sums_of
from terrace.moving.texts import Texts
from terrace.moving.writing import write_private
from terrace.storage import Blobs
from terrace.storage.migrate import head
from terrace.types import moment

MAX_MANIFEST = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Restored:
    id: str
    made_at: float
    rows: int
    files: int
    secret: bool
    seconds: float


class Restoring:
    """Into `database`, `blobs` and, for what is neither, the data folder."""

    def __init__(self, database: Place, blobs: Blobs, data: Path, told: Told) -> None:
        self._database = database
        self._blobs = blobs
        self._data = data
        self._told = told

    async def run(self, path: Path, given: Secret | None, *, resume: bool = False, trust: bool = False) -> Restored:
        """`given`: the secret that the settings name, if they do. `trust`: take a signature that cannot be checked.

        Raises Invalid for a backup that is damaged or signed otherwise, Conflict when the installation is not empty.
        """
        began = time.monotonic()
        with _opened(path) as archive:
            members = await asyncio.to_thread(_members, archive)
            manifest = await asyncio.to_thread(_manifest, archive, members)
            await asyncio.to_thread(_check_entries, archive, members, manifest, self._told)
            secret = _secret_in(archive, members)
            _check_signature(manifest, secret, given, trust)
            if resume and self._is_done(manifest):  # killed after its last step
                files = sum(name.startswith(FILES) for name in manifest["entries"])
                return _restored(manifest, files, secret, began)
            await self._check_empty(manifest, resume)
            if secret is not None:
                self._check_secret(secret, given)
            write_private(self._data / RESTORING, str(manifest["id"]).encode())
            if secret is not None and given is None:
                write_private(self._data / SECRET, secret)
            files = await self._put_files(archive, members, manifest)
            await self._put_database(archive, members, manifest, resume)
            (self._data / RESTORING).replace(self._data / RESTORED)
        return _restored(manifest, files, secret, began)

    def _is_done(self, manifest: Manifest) -> bool:
        done = self._data / RESTORED
        return done.exists() and done.read_text().strip() == manifest["id"]

    async def _check_empty(self, manifest: Manifest, resume: bool) -> None:
        mark = self._data / RESTORING
        if mark.exists():
            if not resume:
                raise Conflict("A restore was begun here. Go on with --resume.", code="restore_begun")
            if mark.read_text().strip() != manifest["id"]:
                raise Conflict("Another backup was being restored here. Start with an empty folder.", code="not_empty")
            return
        async for blob in self._blobs.list():
            raise Conflict(f"This installation is not empty: it has files, such as {blob.key}.", code="not_empty")
        await asyncio.to_thread(guarded, self._check_no_rows)

    def _check_no_rows(self) -> None:
        if self._database.kind == "postgresql" or self._database.path.is_file():
            with closing(open_side(self._database)) as side:
                empty_of_rows(side, str(self._database))

    def _check_secret(self, secret: bytes, given: Secret | None) -> None:
        path = self._data / SECRET
        if given is not None:
            if given.key("same") != Secret(secret.decode().strip()).key("same"):
                raise Conflict(
                    "The settings name another secret (TERRACE_ACCOUNTS__SECRET) than the backup was made with. "
                    "Take it out of the settings: the backup brings its own.",
                    code="other_secret",
                )
        elif path.exists() and path.read_bytes().strip() != secret.strip():
            raise Conflict(
                f"There is another secret in {path}. Move it away: the backup brings its own.", code="other_secret"
            )

    async def _put_files(
        self, archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], manifest: Manifest
    ) -> int:
        names = [name for name in manifest["entries"] if name.startswith(FILES)]
        for done, name in enumerate(names, 1):
            stored = await self._blobs.put(name.removeprefix(FILES), _streamed(archive, members[name]))
            if stored.sha256 != manifest["entries"][name]["sha256"]:
                raise Internal(f"The file {name} did not arrive as it was sent.", code="not_equal")
            self._told("files restored", done, len(names))
        return len(names)

    async def _put_database(
        self, archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], manifest: Manifest, resume: bool
    ) -> None:
        folder = self._data / f"restore-{manifest['id']}"
        copy = Place(f"sqlite:///{folder / DATABASE}", "sqlite")
        await asyncio.to_thread(_extract, archive, members[DATABASE], copy.path)
        async with open_index(copy) as (_, index):
            await asyncio.to_thread(guarded, self._prepare, copy, manifest, index)
        if self._database.kind == "sqlite":
            await asyncio.to_thread(_settle, copy.path, self._database.path)
        else:
            move = DatabaseMove(copy, self._database, self._told)
            begun = (await move.plan()).state != "empty"
            await move.run(resume=resume and begun)
        shutil.rmtree(folder)

    def _prepare(self, copy: Place, manifest: Manifest, index: Any) -> None:
        """Proved, brought up to this version's schema, and with its words."""
        with closing(open_side(copy)) as side:
            found = sums_of(side, side.tables(), self._told, "compared")
            if found != {name: Sum(**each) for name, each in manifest["tables"].items()}:
                raise _damaged("its database is not what was written")
            with side.writing():
                side.migrate()
            Texts(side, index).write(self._told)
            side.run("PRAGMA wal_checkpoint(TRUNCATE)")


def _restored(manifest: Manifest, files: int, secret: bytes | None, began: float) -> Restored:
    return Restored(
        str(manifest["id"]),
        float(manifest["made_at"]),
        rows=sum(each["rows"] for each in manifest["tables"].values()),
        files=files,
        secret=secret is not None,
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True, slots=True)
class Found:
    kind: str
    id: str
    about: str
    genuine: bool  # signed by whoever asks


def look_through(path: Path, secret: Secret, told: Told) -> Found:
    """A backup is read to its end; of a manifest the signature is checked. Raises Invalid for what is damaged."""
    if not tarfile.is_tarfile(path):
        manifest = read(path)
        about = f"{manifest.get('source')} to {manifest.get('destination')}"
        return Found(str(manifest["kind"]), str(manifest.get("id")), about, is_genuine(manifest, secret))
    with _opened(path) as archive:
        members = _members(archive)
        manifest = _manifest(archive, members)
        _check_entries(archive, members, manifest, told)
    rows = sum(each["rows"] for each in manifest["tables"].values())
    about = f"made {moment(manifest['made_at']):%Y-%m-%d %H:%M} UTC, {rows:,} rows, all as it was written"
    return Found("backup", str(manifest["id"]), about, is_genuine(manifest, secret))


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except tarfile.TarError as error:
        raise _damaged("it is no tar file, or ends too early") from error
    except FileNotFoundError as error:
        raise Invalid(f"There is no file {path}.", code="unreadable") from error


def _members(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """By name; of two the later counts. Nothing but files: what is written where is decided here, not there."""
    return {each.name: each for each in archive if each.isfile()}


def _manifest(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> Manifest:
    if MANIFEST not in members or members[MANIFEST].size > MAX_MANIFEST:
        raise _damaged("it has no manifest")
    manifest = decode(b"".join(_pieces(archive, members[MANIFEST])))
    if manifest["kind"] != "backup" or not {"id", "made_at", "entries", "tables"} <= manifest.keys():
        raise _damaged("its manifest is of something else")
    if manifest.get("format") != FORMAT or str(manifest.get("schema")) > head():
        raise Invalid("This backup was made by a newer version of Terrace.", code="backup_too_new")
    return manifest


def _check_entries(
    archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], manifest: Manifest, told: Told
) -> None:
    """Raises Invalid unless everything is there as it was written."""
    entries = manifest["entries"]
    if entries.keys() != members.keys() - {MANIFEST} or DATABASE not in entries:
        raise _damaged("it does not hold what its manifest names")
    for done, (name, entry) in enumerate(entries.items(), 1):
        found = hashlib.sha256()
        for piece in _pieces(archive, members[name]):
            found.update(piece)
        if found.hexdigest() != entry["sha256"]:
            raise _damaged(f"{name} is not what was written")
        told("backup looked through", done, len(entries))


def _secret_in(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> bytes | None:
    return b"".join(_pieces(archive, members[SECRET])) if SECRET in members else None


def _check_signature(manifest: Manifest, inside: bytes | None, given: Secret | None, trust: bool) -> None:
    secret = Secret(inside.decode().strip()) if inside is not None else given
    if (secret is None or not is_genuine(manifest, secret)) and not trust:
        raise Invalid(
            "Whether this backup is as it was made cannot be told: it is signed with a secret that is not here. Set "
            "TERRACE_ACCOUNTS__SECRET to that of the installation it was made on, or say --trust.",
            code="signature",
        )


def _pieces(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    file = archive.extractfile(member)
    assert file is not None  # only files are among the members
    with file:
        while piece := file.read(PIECE):
            yield piece


async def _streamed(archive: tarfile.TarFile, member: tarfile.TarInfo) -> AsyncIterator[bytes]:
    pieces = _pieces(archive, member)
    while (piece := await asyncio.to_thread(next, pieces, b"")) != b"":
        yield piece


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for piece in _pieces(archive, member):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _settle(copy: Path, path: Path) -> None:
    """Into its place, whole; an empty database that was there goes."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    os.replace(copy, path)


def _damaged(why: str) -> Invalid:
    return Invalid(f"This backup cannot be used: {why}. Nothing was restored.", code="backup_damaged")
