"""Every kind of blob store behaves like this."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ports import free_port
from tests.s3 import S3Service, s3_service

from terrace.errors import Conflict, Invalid, Missing, Unavailable
from terrace.settings import Settings
from terrace.storage.blobs import PARTS, PIECE, Blobs, FolderBlobs, MemoryBlobs, checked, open_blobs
from terrace.storage.blobs.s3 import PART, S3Blobs

CONTENT = bytes(range(256)) * 5000  # a few pieces


@pytest.fixture(scope="module")
def running() -> Iterator[S3Service]:
    with s3_service() as service:
        yield service


@pytest.fixture
async def service(running: S3Service) -> S3Service:
    """With its bucket empty."""
    await running.make()
    await running.empty()
    return running


@pytest.fixture(params=["memory", "folder", "s3"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    if request.param == "memory":
        opened: Blobs = MemoryBlobs()
    elif request.param == "folder":
        opened = FolderBlobs(tmp_path / "blobs")
    else:
        service: S3Service = request.getfixturevalue("running")
        await service.make()
        await service.empty()
        opened = await open_blobs(Settings(data=tmp_path, storage=service.storage("terrace/blobs")))
    yield opened
    await opened.close()


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


async def test_keys_cannot_leave_the_store(blobs: Blobs) -> None:
    for key in [*BAD_KEYS, "x" * 501]:
        with pytest.raises(Invalid):
            await blobs.put(key, b"x")
        with pytest.raises(Invalid):
            await blobs.read(key)
        with pytest.raises(Invalid):
            await blobs.delete(key)
        with pytest.raises(Invalid):
            await blobs.exists(key)
        with pytest.raises(Invalid):
            await blobs.link(key, name="x", media_type="text/plain")


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


async def test_halves_of_a_dead_process_are_swept_from_a_folder(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    (tmp_path / PARTS).mkdir()
    for name, age in (("old", 100_000), ("young", 10)):
        path = tmp_path / PARTS / name
        path.write_bytes(b"x")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert await blobs.sweep() == 1
    assert [path.name for path in (tmp_path / PARTS).iterdir()] == ["young"]
    assert await keys(blobs) == []


async def test_a_folder_going_away_with_its_last_blob_loses_no_new_one(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)

    async def churn(name: str) -> None:
        for _ in range(60):
            await blobs.put(f"acme/doc_1/{name}", b"x")
            await blobs.delete(f"acme/doc_1/{name}")

    await asyncio.gather(*(churn(str(number)) for number in range(8)))
    assert await keys(blobs) == []


# -- what only a bucket does


@pytest.fixture
async def bucket(service: S3Service, tmp_path: Path) -> AsyncIterator[S3Blobs]:
    opened = await open_blobs(Settings(data=tmp_path, storage=service.storage("terrace", presigned=True)))
    assert isinstance(opened, S3Blobs)
    yield opened
    await opened.close()


async def test_a_large_blob_goes_up_in_parts_while_it_arrives(bucket: S3Blobs) -> None:
    content = os.urandom(1000) * 20_000  # 20 MB
    stored = await bucket.put("large", pieces(content, 300_000))
    assert (stored.bytes, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert await bucket.size("large") == len(content)
    assert hashlib.sha256(await bucket.read("large")).hexdigest() == stored.sha256
    assert await bucket.read("large", PART - 10, PART + 10) == content[PART - 10 : PART + 10]


async def test_a_broken_large_upload_leaves_nothing_in_the_bucket(bucket: S3Blobs, service: S3Service) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (PART + 1)
        raise ConnectionError("the client went away")

    with pytest.raises(ConnectionError):
        await bucket.put("half", broken())
    await bucket.close()  # waits for what is being given up
    assert await service.uploads() == []
    assert not await bucket.exists("half")


async def test_two_installations_share_a_bucket_and_see_nothing_of_each_other(service: S3Service) -> None:
    one, two = (S3Blobs(service.bucket, prefix, service.options()) for prefix in ("one", "two"))
    await one.put("k", b"1")
    assert not await two.exists("k")
    assert await keys(two) == []
    assert await keys(one) == ["k"]
    await one.close()
    await two.close()


async def test_a_link_fetches_the_blob_under_its_name_without_a_key(bucket: S3Blobs) -> None:
    await bucket.put("acme/doc_1", CONTENT)
    address = await bucket.link("acme/doc_1", name='Bericht "März".pdf', media_type="application/pdf")
    assert address is not None
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        assert await answer.read() == CONTENT
        assert answer.headers["Content-Type"] == "application/pdf"
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''Bericht%20%22M%C3%A4rz%22.pdf"
    assert 0 < int(parse_qs(urlsplit(address).query)["X-Amz-Expires"][0]) <= 900


async def test_links_are_given_only_when_configured(blobs: Blobs) -> None:
    await blobs.put("k", b"x")
    assert await blobs.link("k", name="k.txt", media_type="text/plain") is None


async def test_old_halves_are_swept_from_a_bucket_and_others_spared(bucket: S3Blobs, service: S3Service) -> None:
    """The service dates every upload 2010."""
    await service.begin_upload("terrace/half")
    await service.begin_upload("elsewhere/half")
    assert await bucket.sweep(before=0) == 0
    assert await bucket.sweep() == 1
    assert await service.uploads() == ["elsewhere/half"]


@pytest.mark.parametrize("where", ["s3://", "s3://X", "s3://files/../up", "gs://files", "s3://nowhere-at-all"])
async def test_a_place_that_cannot_be_used_is_told(where: str, service: S3Service, tmp_path: Path) -> None:
    storage = service.storage() | {"blobs": where}
    with pytest.raises(Invalid):
        await open_blobs(Settings(data=tmp_path, storage=storage))


@pytest.mark.parametrize("there", ["file", "file/below"])
async def test_a_folder_that_can_be_none_is_told(there: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match="no folder"):
        await open_blobs(Settings(data=tmp_path, storage={"blobs": str(tmp_path / there)}))


@pytest.mark.parametrize(
    ("s3", "told"),
    [
        ({"endpoint": "minio:9000", "access_key": "a", "secret_key": "very secret"}, "no address"),
        ({"endpoint": "http://127.0.0.1:1", "access_key": "a"}, "only one is given"),
        ({"endpoint": "http://127.0.0.1:1", "secret_key": "very secret"}, "only one is given"),
    ],
)
async def test_a_bucket_that_is_named_wrongly_is_told(s3: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=told) as caught:
        await open_blobs(Settings(data=tmp_path, storage={"blobs": "s3://files", "s3": s3}))
    assert "very secret" not in str(caught.value)


async def test_a_bucket_that_is_away_is_told_and_stops_no_start(tmp_path: Path) -> None:
    storage = {
        "blobs": "s3://files",
        "s3": {"endpoint": f"http://127.0.0.1:{free_port()}", "access_key": "a", "secret_key": "very secret"},
    }
    blobs = await open_blobs(Settings(data=tmp_path, storage=storage))
    with pytest.raises(Unavailable) as told:
        await blobs.read("k")
    assert told.value.code == "blobs_unavailable"
    assert "very secret" not in f"{told.value!r} {blobs!r}"
    await blobs.close()
