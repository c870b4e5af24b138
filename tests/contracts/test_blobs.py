"""Every kind of blob store behaves like this."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.errors import Conflict, Invalid, Missing
from terrace.storage.blobs import PARTS, PIECE, Blobs, FolderBlobs, MemoryBlobs, checked

CONTENT = bytes(range(256)) * 5000  # a few pieces


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return MemoryBlobs() if request.param == "memory" else FolderBlobs(tmp_path / "blobs")


async def pieces(content: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def keys(blobs: Blobs, prefix: str = "") -> list[str]:
    return [blob.key async for blob in blobs.list(prefix)]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_what_is_put_is_read(blobs: Blobs) -> None:
    stored = await blobs.put("acme/doc_1", pieces(CONTENT))
    assert stored.bytes == len(CONTENT) == await blobs.size("acme/doc_1")
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert await blobs.read("acme/doc_1") == CONTENT
    assert b"".join([piece async for piece in blobs.stream("acme/doc_1")]) == CONTENT
    async with blobs.local("acme/doc_1") as path:
        assert path.read_bytes() == CONTENT


async def test_a_range_is_half_open(blobs: Blobs) -> None:
    await blobs.put("k", CONTENT)
    for start, end in [(0, 1), (5, 5), (100, PIECE + 200), (len(CONTENT) - 3, len(CONTENT) + 50), (7, None)]:
        assert await blobs.read("k", start, end) == CONTENT[start:end]


async def test_an_empty_blob_is_a_blob(blobs: Blobs) -> None:
    assert (await blobs.put("empty", b"")).bytes == 0
    assert await blobs.exists("empty")
    assert await blobs.read("empty") == b""


async def test_putting_again_replaces(blobs: Blobs) -> None:
    await blobs.put("k", b"old and long")
    await blobs.put("k", b"new")
    assert await blobs.read("k") == b"new"


async def test_the_limit_is_checked_while_it_arrives(blobs: Blobs) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += PIECE
            yield b"x" * PIECE

    with pytest.raises(Invalid, match="larger than the 3,000,000 bytes") as told:
        await blobs.put("big", endless(), limit=3_000_000)
    assert told.value.status == 413
    assert taken < 6_000_000
    assert await keys(blobs) == []
    await blobs.put("exact", b"x" * 3_000_000, limit=3_000_000)


async def test_nothing_half_done_stays(blobs: Blobs, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT
        raise ConnectionError("the client went away")

    with pytest.raises(ConnectionError):
        await blobs.put("half", broken())
    stuck = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield CONTENT
        stuck.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(blobs.put("half", stalled()))
    await stuck.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not await blobs.exists("half")
    assert await keys(blobs) == []
    assert files(tmp_path) == []


async def test_what_is_absent_is_missing(blobs: Blobs) -> None:
    assert not await blobs.exists("nothing")
    assert not await blobs.delete("nothing")
    with pytest.raises(Missing):
        await blobs.read("nothing")
    with pytest.raises(Missing):
        await blobs.size("nothing")
    with pytest.raises(Missing):
        async with blobs.local("nothing"):
            pass


async def test_delete_and_list(blobs: Blobs) -> None:
    for key in ("b/2", "a/1", "b/1", "c"):
        await blobs.put(key, key.encode())
    assert await keys(blobs) == ["a/1", "b/1", "b/2", "c"]
    assert await keys(blobs, "b/") == ["b/1", "b/2"]
    assert await blobs.delete("b/1")
    assert await keys(blobs) == ["a/1", "b/2", "c"]
    assert [blob.bytes async for blob in blobs.list("c")] == [1]


BAD_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "../up",
    "a/../b",
    "a//b",
    "a/",
    ".hidden",
    f"{PARTS}/x",
    "a\\b",
    "a\0b",
    "ä",
    "a\n",
]


@pytest.mark.parametrize("key", [*BAD_KEYS, "x" * 501])
async def test_keys_cannot_leave_the_store(blobs: Blobs, key: str) -> None:
    with pytest.raises(Invalid):
        await blobs.put(key, b"x")
    with pytest.raises(Invalid):
        await blobs.read(key)
    with pytest.raises(Invalid):
        await blobs.delete(key)
    with pytest.raises(Invalid):
        await blobs.exists(key)


@given(st.text(max_size=40))
def test_a_key_that_passes_stays_below_the_root(key: str) -> None:
    try:
        checked(key)
    except Invalid:
        return
    root = Path("/srv/blobs")
    assert root in Path(root / key).resolve().parents
    assert PARTS not in Path(key).parts


async def test_two_writers_of_one_key_leave_one_whole_blob(blobs: Blobs) -> None:
    await asyncio.gather(*(blobs.put("k", pieces(bytes([n]) * 1_000_000)) for n in range(4)))
    content = await blobs.read("k")
    assert content == content[:1] * 1_000_000


async def test_a_key_below_a_blob_is_a_conflict(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    await blobs.put("a", b"1")
    with pytest.raises(Conflict):
        await blobs.put("a/b", b"2")
    assert await keys(blobs) == ["a"]


async def test_a_full_disk_is_told_and_nothing_stays(tmp_path: Path) -> None:
    """In a process of its own whose files may not grow beyond 1 MB."""
    program = (
        "import asyncio, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from terrace.errors import Unavailable\n"
        "from terrace.storage.blobs import FolderBlobs\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n"
        "    asyncio.run(FolderBlobs(Path(sys.argv[1])).put('k', b'x' * 3_000_000))\n"
        "except Unavailable as error:\n"
        "    print(error.code)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output.decode().strip() == "disk_full"
    assert files(tmp_path) == []


async def test_halves_of_a_dead_process_are_swept(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    (tmp_path / PARTS).mkdir()
    for name, age in (("old", 100_000), ("young", 10)):
        path = tmp_path / PARTS / name
        path.write_bytes(b"x")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert await blobs.sweep() == 1
    assert [path.name for path in (tmp_path / PARTS).iterdir()] == ["young"]
    assert await keys(blobs) == []


async def test_a_folder_going_away_with_its_last_blob_loses_no_new_one(blobs: Blobs) -> None:
    async def churn(name: str) -> None:
        for _ in range(150):
            await blobs.put(f"acme/doc_1/{name}", b"x")
            await blobs.delete(f"acme/doc_1/{name}")

    await asyncio.gather(*(churn(str(number)) for number in range(8)))
    assert await keys(blobs) == []
