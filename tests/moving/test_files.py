"""Files between a folder and a bucket."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.moving.conftest import quiet
from tests.s3 import S3Service

from terrace.errors import Conflict, Invalid
from terrace.moving.files import MARK, FilesMove
from terrace.settings import Settings
from terrace.storage import Blobs, FolderBlobs, MemoryBlobs, open_blobs
from terrace.storage.blobs import Blob

FILES = {"acme/documents/doc_1/original": b"one" * 1000, "acme/documents/doc_2/original": b"", "globex/x": b"three"}


@pytest.fixture
async def folder(tmp_path: Path) -> Blobs:
    blobs = FolderBlobs(tmp_path / "blobs")
    for key, content in FILES.items():
        await blobs.put(key, content)
    return blobs


@pytest.fixture
async def remote(bucket: S3Service, tmp_path: Path) -> AsyncIterator[Blobs]:
    await bucket.empty()
    blobs = await open_blobs(Settings(data=tmp_path, storage=bucket.storage("moved")))
    yield blobs
    await blobs.close()


def moving(here: Blobs, there: Blobs, source: str = "the folder") -> FilesMove:
    return FilesMove(here, there, source, "the other", quiet)


async def content(blobs: Blobs) -> dict[str, bytes]:
    return {each.key: await blobs.read(each.key) async for each in blobs.list()}


async def test_from_a_folder_to_a_bucket_and_back(folder: Blobs, remote: Blobs, tmp_path: Path) -> None:
    assert (await moving(folder, remote).plan()).files == 3
    assert await content(remote) == {}
    moved = await moving(folder, remote).run()
    assert (moved.files.rows, moved.bytes, moved.copied) == (3, 3005, 3)
    assert await content(remote) == FILES == await content(folder)
    back = FolderBlobs(tmp_path / "back")
    again = await moving(remote, back).run()
    assert again.files == moved.files
    assert await content(back) == FILES


async def test_where_the_other_clock_is_slow_each_file_is_copied_once(folder: Blobs) -> None:
    class Slow(MemoryBlobs):
        async def list(self, prefix: str = "") -> AsyncGenerator[Blob, None]:
            async for each in super().list(prefix):
                yield replace(each, modified_at=each.modified_at - 3600)

    there = Slow()
    moved = await moving(folder, there).run()
    assert (moved.files.rows, moved.copied) == (3, 3)
    assert await content(there) == FILES


async def test_what_broke_off_goes_on_and_a_spoilt_copy_is_mended(folder: Blobs) -> None:
    there = MemoryBlobs()
    await there.put(MARK, b"the folder")
    await there.put("globex/x", b"tHREE")  # as long, but not the same
    await there.put("acme/documents/doc_1/original", b"one")
    with pytest.raises(Conflict, match="--resume"):
        await moving(folder, there).run()
    with pytest.raises(Conflict, match="not from"):
        await moving(folder, there, "another folder").run(resume=True)
    await moving(folder, there).run(resume=True)
    assert await content(there) == FILES


async def test_a_place_with_other_files_is_left_alone(folder: Blobs) -> None:
    there = MemoryBlobs()
    await there.put("globex/x", b"three")
    await there.put("mine", b"mine")
    with pytest.raises(Conflict, match="is not empty"):
        await moving(folder, there).run()
    with pytest.raises(Conflict, match="such as mine"):
        await moving(folder, there).roll_back()
    assert set(await content(there)) == {"globex/x", "mine"}


async def test_what_came_since_is_brought_over(folder: Blobs) -> None:
    there = MemoryBlobs()
    await moving(folder, there).run()
    await folder.put("late", b"late")
    await folder.delete("globex/x")  # nothing refers to it there either: the daily tidying takes it
    with pytest.raises(Conflict, match="--resume"):
        await moving(folder, there).run()
    assert (await moving(folder, there).plan()).state == "done"
    moved = await moving(folder, there).run(resume=True)
    assert (moved.files.rows, moved.copied) == (3, 1)
    assert await there.read("late") == b"late"
    with pytest.raises(Conflict, match="is not empty"):
        await moving(MemoryBlobs(), there).run(resume=True)


async def test_a_rollback_removes_what_came(folder: Blobs) -> None:
    there = MemoryBlobs()
    await moving(folder, there).run()
    assert await moving(folder, there).roll_back() == 3
    assert await content(there) == {}
    assert await content(folder) == FILES


async def test_what_comes_in_meanwhile_is_moved_too(folder: Blobs) -> None:
    there = MemoryBlobs()

    class Busy(MemoryBlobs):
        """Takes one more file into the folder while it is being filled."""

        async def put(self, key, pieces, *, limit=None):  # type: ignore[no-untyped-def]
            stored = await super().put(key, pieces, limit=limit)
            if key == "globex/x":
                await folder.put("late", b"late")
            return stored

    there = Busy()
    await moving(folder, there).run()
    assert await content(there) == {**FILES, "late": b"late"}


def test_a_place_is_not_moved_into_itself(folder: Blobs) -> None:
    with pytest.raises(Invalid):
        FilesMove(folder, folder, "here", "here", quiet)
