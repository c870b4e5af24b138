"""A backup of a running installation, brought back: all of it, or a sentence that says why not."""

import asyncio
import hashlib
import os
import sqlite3
import stat
import tarfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest
from tests.moving.conftest import Installation, pieces, quiet, ready, settings_of, sums
from tests.moving.test_databases import search
from tests.postgres import Postgres

from terrace import assembly
from terrace.accounts.secret import Secret, load_secret
from terrace.errors import Conflict, Invalid, TerraceError
from terrace.knowledge.base import Filter
from terrace.moving.backup import DATABASE, MANIFEST, Backing, Backup
from terrace.moving.databases import DatabaseMove
from terrace.moving.manifest import SIGNATURE, encode, signed
from terrace.moving.places import Place, open_side, place
from terrace.moving.restore import Restored, Restoring, look_through
from terrace.settings import Settings
from terrace.storage import FolderBlobs, open_blobs
from terrace.storage.blobs.base import Blob
from terrace.types import Scope


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Place]:
    url = postgres.create(empty=True)
    yield place(url)
    postgres.drop(url)


async def back_up(settings: Settings, path: Path, *, secret: bool = True) -> Backup:
    key = load_secret(settings.accounts, settings.data)
    inside = settings.data / "secret" if secret else None
    return await Backing(place(settings.database_url), await open_blobs(settings), key, inside, quiet).write(path)


async def restore(settings: Settings, path: Path, given: Secret | None = None, **how: bool) -> Restored:
    settings.data.mkdir(exist_ok=True)
    restoring = Restoring(place(settings.database_url), await open_blobs(settings), settings.data, quiet)
    return await restoring.run(path, given, **how)


def files(data: Path) -> dict[str, bytes]:
    root = data / "blobs"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def test_what_was_kept_gives_the_same_answers(installation: Installation, tmp_path: Path) -> None:
    made = await back_up(installation.settings, tmp_path / "terrace.tar")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert made.secret
    there = settings_of(tmp_path / "new")
    restored = await restore(there, made.path)
    assert (restored.rows, restored.files) == (made.rows, made.files)
    assert sums(place(there.database_url)) == sums(installation.place)
    assert files(there.data) == files(installation.data)
    assert (there.data / "secret").read_bytes() == (installation.data / "secret").read_bytes()
    for tenant in ("default", "globex"):
        assert await search(there, Scope(tenant)) == await search(installation.settings, Scope(tenant))


async def test_through_postgresql(installation: Installation, empty: Place, postgres: Postgres, tmp_path: Path) -> None:
    """From SQLite into PostgreSQL, kept there, and brought back into SQLite."""
    answers = await search(installation.settings, Scope())
    made = await back_up(installation.settings, tmp_path / "one.tar")
    on_postgresql = settings_of(tmp_path / "two", url=empty.address)
    await restore(on_postgresql, made.path)
    assert await search(on_postgresql, Scope()) == answers
    again = await back_up(on_postgresql, tmp_path / "two.tar")
    there = settings_of(tmp_path / "three")
    await restore(there, again.path)
    assert sums(place(there.database_url)) == sums(empty)
    assert await search(there, Scope()) == answers


async def test_it_is_taken_while_writes_go_on(installation: Installation, tmp_path: Path) -> None:
    """Whatever document the backup knows, its file is in it."""
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            document, _ = await house.knowledge.upload(Scope(), f"w{number}.txt", pieces(b"Rope %d" % number))
            if number % 3 == 0:
                await house.knowledge.delete(Scope(), document.id)

    async with assembly.assemble(installation.settings) as house:
        writing = asyncio.create_task(write())
        made = await back_up(installation.settings, tmp_path / "terrace.tar")
        stop.set()
        await writing
    there = settings_of(tmp_path / "new")
    await restore(there, made.path)
    async with assembly.assemble(there) as house:
        documents, _ = await house.knowledge.list(Scope(), limit=200)
        for each in documents:
            _, stream = await house.knowledge.original(Scope(), each.id)
            assert b"".join([piece async for piece in stream])


class Meanwhile(FolderBlobs):
    """After each listing something happens, before any of what was listed is read."""

    def __init__(self, root: Path, *happens: Callable[[], Awaitable[None]]) -> None:
        super().__init__(root)
        self._happens = list(happens)

    async def list(self, prefix: str = "") -> AsyncGenerator[Blob, None]:
        async for each in super().list(prefix):
            yield each
        if self._happens:
            await self._happens.pop(0)()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_what_came_and_went_while_it_was_taken_is_left_out(
    installation: Installation, empty: Place, tmp_path: Path, kind: str
) -> None:
    """And what has lost its file long since is not: its text is all there is."""
    settings = installation.settings
    if kind == "postgresql":
        await restore(settings_of(tmp_path / "two", url=empty.address), (await back_up(settings, tmp_path / "1")).path)
        settings = settings_of(tmp_path / "two", url=empty.address)
    async with assembly.assemble(settings) as house:
        await house.jobs.start()
        before, _ = await house.knowledge.list(Scope(), limit=200)
        bare = before[0].id
        (settings.data / "blobs" / "default" / "documents" / bare / "original").unlink()
        came: list[str] = []

        async def comes() -> None:
            document, _ = await house.knowledge.upload(Scope(), "meanwhile.txt", pieces(b"Ropes rot."))
            await ready(house, Scope(), document.id)
            came.append(document.id)

        async def goes() -> None:
            await house.knowledge.delete(Scope(), came[0])

        blobs = Meanwhile(settings.data / "blobs", comes, goes)
        key = load_secret(settings.accounts, settings.data)
        made = await Backing(place(settings.database_url), blobs, key, None, quiet).write(tmp_path / "terrace.tar")
    there = settings_of(tmp_path / "new")
    await restore(there, made.path, key)
    async with assembly.assemble(there) as house:
        documents, _ = await house.knowledge.list(Scope(), limit=200)
        assert {each.id for each in documents} == {each.id for each in before}
        assert (await house.knowledge.text(Scope(), bare)).text
        assert not await house.index.search(Scope(), "rot", None, model=None, k=1, filter=Filter())


async def test_a_damaged_backup_is_found_out_before_anything_is_written(
    installation: Installation, tmp_path: Path
) -> None:
    made = await back_up(installation.settings, tmp_path / "terrace.tar")
    whole = made.path.read_bytes()
    there = settings_of(tmp_path / "new")
    spoilt = tmp_path / "spoilt.tar"
    secret = (installation.data / "secret").read_bytes()
    for held in (secret, b"The quay of the", b"SQLite format 3", b"CREATE TABLE chunks", b'"tables"', b'"signature"'):
        at = whole.index(held) + len(held) // 2
        spoilt.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(TerraceError):
            await restore(there, spoilt)
        assert set(os.listdir(there.data)) <= {"backups"}
    spoilt.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Invalid):
        await restore(there, spoilt)
    spoilt.write_bytes(b"no tar at all")
    with pytest.raises(Invalid):
        await restore(there, spoilt)


def as_of(revision: str, backup: Path, path: Path, secret: Secret) -> None:
    """The backup that the version of Terrace with this schema would have made."""
    folder = path.parent / f"of_{revision}"
    with tarfile.open(backup) as archive:
        archive.extractall(folder, filter="data")
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    where = place(f"sqlite:///{folder / DATABASE}")
    if revision < manifest["schema"]:
        with closing(open_side(where)) as side, side.writing():
            side.migrate(revision)
    tables = {name: asdict(each) for name, each in sums(where).items()}
    with closing(sqlite3.connect(where.path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
    content = where.path.read_bytes()
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    told = {**manifest, "schema": revision, "tables": tables, "entries": {**manifest["entries"], DATABASE: entry}}
    del told[SIGNATURE]
    (folder / MANIFEST).write_bytes(encode(signed(told, secret)))
    with tarfile.open(path, "w") as archive:
        for each in (*told["entries"], MANIFEST):
            archive.add(folder / each, each)


@pytest.mark.parametrize("revision", ["0017", "0021"])
async def test_a_backup_of_an_older_version_is_brought_up_to_date(
    revision: str, installation: Installation, tmp_path: Path
) -> None:
    made = await back_up(installation.settings, tmp_path / "terrace.tar")
    old = tmp_path / "old.tar"
    as_of(revision, made.path, old, load_secret(installation.settings.accounts, installation.data))
    there = settings_of(tmp_path / "new")
    await restore(there, old)
    assert await search(there, Scope("default")) == await search(installation.settings, Scope("default"))
    assert files(there.data) == files(installation.data)


async def test_a_backup_of_a_newer_version_is_refused_before_anything_is_written(
    installation: Installation, tmp_path: Path
) -> None:
    made = await back_up(installation.settings, tmp_path / "terrace.tar")
    new = tmp_path / "newer.tar"
    as_of("9999", made.path, new, load_secret(installation.settings.accounts, installation.data))
    there = settings_of(tmp_path / "new")
    with pytest.raises(Invalid, match="newer version"):
        await restore(there, new)
    assert os.listdir(there.data) == []


async def test_only_an_empty_installation_is_restored_into(installation: Installation, tmp_path: Path) -> None:
    made = await back_up(installation.settings, tmp_path / "terrace.tar")
    before = sums(installation.place)
    with pytest.raises(Conflict, match="not empty"):
        await restore(installation.settings, made.path)
    assert sums(installation.place) == before
    with_file = settings_of(tmp_path / "files")
    await FolderBlobs(with_file.data / "blobs").put("mine", b"mine")
    with pytest.raises(Conflict, match="such as mine"):
        await restore(with_file, made.path)
    other_secret = settings_of(tmp_path / "secret")
    other_secret.data.mkdir()
    load_secret(other_secret.accounts, other_secret.data)
    with pytest.raises(Conflict, match="another secret"):
        await restore(other_secret, made.path)
    with pytest.raises(Conflict, match="there already"):
        await back_up(installation.settings, made.path)


async def test_a_backup_without_the_secret_needs_it_from_elsewhere(installation: Installation, tmp_path: Path) -> None:
    made = await back_up(installation.settings, tmp_path / "terrace.tar", secret=False)
    assert not made.secret
    assert (installation.data / "secret").read_bytes().strip() not in made.path.read_bytes()
    secret = load_secret(installation.settings.accounts, installation.data)
    assert look_through(made.path, secret, quiet).genuine
    other = Secret("another installation's, 40 characters long")
    assert not look_through(made.path, other, quiet).genuine
    with pytest.raises(Invalid, match="--trust"):
        await restore(settings_of(tmp_path / "new"), made.path)
    with pytest.raises(Invalid, match="--trust"):
        await restore(settings_of(tmp_path / "new"), made.path, other)
    await restore(settings_of(tmp_path / "new"), made.path, secret)
    await restore(settings_of(tmp_path / "newer"), made.path, trust=True)


async def test_a_restore_that_broke_off_goes_on(installation: Installation, tmp_path: Path) -> None:
    made = await back_up(installation.settings, tmp_path / "terrace.tar")
    there = settings_of(tmp_path / "new")
    there.data.mkdir()

    class Cut(Exception):
        pass

    def cut(doing: str, done: int, total: int) -> None:
        if doing == "files restored" and done == 3:
            raise Cut

    with pytest.raises(Cut):
        await Restoring(place(there.database_url), await open_blobs(there), there.data, cut).run(made.path, None)
    with pytest.raises(Conflict, match="--resume"):
        await restore(there, made.path)
    await restore(there, made.path, resume=True)
    assert sums(place(there.database_url)) == sums(installation.place)
    assert set(os.listdir(there.data)) >= {"secret", "terrace.db", "blobs"}
    assert not (there.data / "restoring").exists()


async def test_a_half_moved_database_is_not_backed_up(installation: Installation, tmp_path: Path) -> None:
    there = place(f"sqlite:///{tmp_path / 'half' / 'terrace.db'}")

    def cut(doing: str, done: int, total: int) -> None:
        if doing == "moved chunks":
            raise KeyError(doing)

    with pytest.raises(KeyError):
        await DatabaseMove(installation.place, there, cut).run()
    with pytest.raises(Conflict, match="still being moved"):
        await back_up(settings_of(tmp_path / "half"), tmp_path / "terrace.tar")
    assert not (tmp_path / "terrace.tar").exists()
