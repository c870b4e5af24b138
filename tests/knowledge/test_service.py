"""The library as its users know it: upload, list, read, change, remove."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace import settings
from terrace.errors import Conflict, Invalid, Missing, TerraceError
from terrace.knowledge import naming, texts
from terrace.knowledge.receiving import Door
from terrace.knowledge.service import Knowledge, Labels
from terrace.storage import Database
from terrace.types import Scope

TEXT = "Tides\n\nThe moon pulls the sea.\n\nThe sun does too, but less."


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def files(*named: tuple[str, bytes]) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    for name, data in named:
        yield name, pieces(data)


def zipped(*named: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in named:
            archive.writestr(name, data)
    return out.getvalue()


# -- coming in


async def test_an_upload_is_a_document_and_a_job(library: Any, scope: Scope) -> None:
    document, job_id = await library.upload(scope, TEXT, "tides.txt", tags=["Sea, moon", "sea"])
    assert (document.state, document.searchable, document.collection) == ("queued", "no", "default")
    assert document.tags == ("moon", "sea")
    assert (document.bytes, document.media_type) == (len(TEXT), "text/plain")
    assert (await library.jobs.get(scope, job_id)).payload == {"document_id": document.id}


async def test_what_was_read_can_be_looked_at(library: Any, scope: Scope) -> None:
    document = await library.add(scope, TEXT + "\fPage two.")
    assert (document.state, document.searchable, document.chunks, document.pages) == ("ready", "meaning", 4, 2)
    chunks, following = await library.knowledge.chunks(scope, document.id, limit=3)
    assert following is not None
    rest, end = await library.knowledge.chunks(scope, document.id, cursor=following)
    assert end is None
    for chunk in [*chunks, *rest]:
        part = await library.knowledge.text(scope, document.id, chunk.start, chunk.end)
        assert (part.text, part.page) == (chunk.text, chunk.page)
    pages = await library.knowledge.pages(scope, document.id)
    assert [page.number for page in pages] == [1, 2]
    shown, stream = await library.knowledge.original(scope, document.id)
    assert b"".join([piece async for piece in stream]).decode() == TEXT + "\fPage two."
    assert shown == document


async def test_the_same_file_is_recognised(library: Any, scope: Scope) -> None:
    first = await library.add(scope, TEXT)
    again, job_id = await library.upload(scope, TEXT, "other name.txt")
    assert again.duplicate
    assert (again.id, again.name, job_id) == (first.id, "a.txt", first.job_id)
    elsewhere, _ = await library.upload(scope, TEXT, collection="Other")
    assert not elsewhere.duplicate
    assert len([key for key in await library.keys() if key.endswith("original")]) == 2


async def test_two_uploads_of_one_file_at_once_are_one_document(library: Any, scope: Scope) -> None:
    results = await asyncio.gather(*(library.upload(scope, TEXT, f"{n}.txt") for n in range(8)))
    assert len({document.id for document, _ in results}) == 1
    assert len({job_id for _, job_id in results}) == 1
    assert sorted(document.duplicate for document, _ in results) == [False] + [True] * 7
    assert len(await library.keys()) == 1


async def test_a_failed_file_is_read_again_when_it_comes_again(library: Any, scope: Scope) -> None:
    first, job_id = await library.upload(scope, TEXT)
    await library.jobs.cancel(scope, job_id)
    assert (await library.knowledge.get(scope, first.id)).state == "failed"
    again, second = await library.upload(scope, TEXT)
    assert again.duplicate
    assert (again.state, again.error) == ("queued", None)
    assert second not in (None, job_id)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "document_empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "document_unsupported"),
        (b"x" * 1_000_001, "file_too_large"),
        (zipped(("a.txt", b"hello")), "document_unsupported"),
    ],
)
async def test_a_refused_upload_leaves_nothing(library: Any, scope: Scope, data: bytes, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        await library.knowledge.upload(scope, "a.txt", pieces(data))
    assert refused.value.code == code
    assert not await library.keys()
    assert await library.table("documents") == 0


async def test_a_connection_that_breaks_leaves_nothing(library: Any, scope: Scope) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half a "
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await library.knowledge.upload(scope, "a.txt", broken())
    assert not await library.keys()


@pytest.mark.parametrize("batch", [False, True])
async def test_an_upload_whose_client_goes_in_mid_write_is_whole(library: Any, scope: Scope, batch: bool) -> None:
    """The row may stand although nobody waits for it; then its file must stand too."""
    held = Held(library.database)
    door = Door(library.blobs, library.processes, settings.Knowledge())
    k = Knowledge(held, library.blobs, library.jobs, library.index, door, Pictures())
    arriving = k.batch_upload(scope, files(("a.txt", b"one"))) if batch else k.upload(scope, "a.txt", pieces(b"one"))
    task = asyncio.ensure_future(arriving)
    await held.begun.wait()
    task.cancel()
    await asyncio.wait([task], timeout=0.1)  # long enough to remove the file, were it to be removed
    held.release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await library.table("documents") == 1
    assert await library.doctor.examine(orphan_age=0) == []
    assert len(await library.keys()) == 1


class Held:
    """A database whose writes take a while, and stand whether or not their caller still waits."""

    dialect = "sqlite"

    def __init__(self, database: Database) -> None:
        self.read, self.watch, self.close = database.read, database.watch, database.close
        self._write = database.write
        self.begun, self.release = asyncio.Event(), asyncio.Event()

    async def write(self, *arguments: Any, **options: Any) -> Any:
        async def later() -> Any:
            self.begun.set()
            await self.release.wait()
            return await self._write(*arguments, **options)

        return await asyncio.shield(asyncio.ensure_future(later()))


class Pictures:
    async def page_image(self, *arguments: Any) -> bytes:
        raise AssertionError("nobody asks for one")

    async def page_marks(self, *arguments: Any) -> Any:
        raise AssertionError("nobody asks for them")


async def test_a_bad_collection_or_tag_leaves_nothing(library: Any, scope: Scope) -> None:
    for options in ({"collection": "x" * 300}, {"collection": "col_unknown"}, {"tags": ["t" * 100]}):
        with pytest.raises(TerraceError):
            await library.upload(scope, TEXT, **options)
    assert not await library.keys()


# -- batches


async def test_a_batch_is_one_job_with_a_child_for_each_file(library: Any, scope: Scope) -> None:
    job_id, items = await library.knowledge.batch_upload(
        scope,
        files(("a.txt", b"one"), ("empty.txt", b""), ("b.txt", b"two"), ("again.txt", b"one")),
        Labels(tags=["t"]),
    )
    assert [item.document is not None for item in items] == [True, False, True, True]
    assert items[1].error is not None
    assert items[1].error["code"] == "document_empty"
    assert items[3].document is not None
    assert items[3].document.duplicate
    parent = await library.jobs.get(scope, job_id)
    assert (parent.state, parent.children) == ("waiting", {"queued": 2})
    assert len(await library.keys()) == 2


async def test_a_batch_of_known_files_needs_no_job(library: Any, scope: Scope) -> None:
    await library.add(scope, "one")
    job_id, items = await library.knowledge.batch_upload(scope, files(("a.txt", b"one"), ("b.txt", b"")))
    assert job_id is None
    assert [item.document.duplicate if item.document else None for item in items] == [True, None]


async def test_a_zip_is_unpacked(library: Any, scope: Scope) -> None:
    archive = zipped(
        ("docs/a.txt", b"one"),
        ("../../etc/passwd.txt", b"two"),
        ("__MACOSX/docs/._a.txt", b"junk"),
        ("docs/.DS_Store", b"junk"),
        ("docs/", b""),
        ("empty.txt", b""),
        ("bomb.txt", b"0" * 900_000 * 6),
        ("inner.zip", zipped(("c.txt", b"three"))),
    )
    job_id, items = await library.knowledge.batch_upload(scope, files(("all.zip", archive)))
    told = {item.name: item.document.state if item.document else (item.error or {})["code"] for item in items}
    assert told == {
        "a.txt": "queued",
        "passwd.txt": "queued",
        "empty.txt": "document_empty",
        "bomb.txt": "too_large",
        "inner.zip": "document_unsupported",
    }
    assert (await library.jobs.get(scope, job_id)).children == {"queued": 2}
    assert len(await library.keys()) == 2


@pytest.mark.parametrize(
    ("archive", "code"),
    [
        (zipped(*((f"{n}.txt", b"x%d" % n) for n in range(11))), "too_many_files"),
        (zipped(("a.txt", b"hello"))[:-10], "document_damaged"),
    ],
)
async def test_a_bad_zip_is_told_and_leaves_nothing(library: Any, scope: Scope, archive: bytes, code: str) -> None:
    job_id, items = await library.knowledge.batch_upload(scope, files(("all.zip", archive)))
    assert job_id is None
    assert [(item.error or {})["code"] for item in items] == [code]
    assert not await library.keys()


async def test_a_batch_that_breaks_off_leaves_nothing(library: Any, scope: Scope) -> None:
    async def breaking() -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        yield "a.txt", pieces(b"one")
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await library.knowledge.batch_upload(scope, breaking())
    assert not await library.keys()
    assert await library.table("jobs") == 0


# -- looking


async def test_lists_are_filtered_and_paged(library: Any, scope: Scope, other: Scope) -> None:
    for n in range(5):
        collection = "Odd" if n % 2 else "default"
        await library.upload(scope, f"text {n}", f"Report {n}.txt", collection=collection, tags=[f"t{n}"])
    await library.upload(other, "theirs", "Report 9.txt")

    async def names(**options: Any) -> list[str]:
        return [each.name for each in (await library.knowledge.list(scope, **options))[0]]

    assert await names() == [f"Report {n}.txt" for n in (4, 3, 2, 1, 0)]
    assert await names(collection="ODD") == ["Report 3.txt", "Report 1.txt"]
    assert await names(collection="nowhere") == []
    assert await names(tag="T2") == ["Report 2.txt"]
    assert await names(q="PORT 4") == ["Report 4.txt"]
    assert await names(q="100%") == []
    assert await names(state="ready") == []
    first, cursor = await library.knowledge.list(scope, limit=3)
    second, end = await library.knowledge.list(scope, limit=3, cursor=cursor)
    assert [each.name for each in [*first, *second]] == await names()
    assert end is None


async def test_nobody_sees_anothers_documents(library: Any, scope: Scope, other: Scope) -> None:
    document = await library.add(scope, TEXT, collection="Mine", tags=["secret"])
    k = library.knowledge
    for attempt in (
        k.get(other, document.id),
        k.update(other, document.id, name="stolen"),
        k.delete(other, document.id),
        k.reprocess(other, document.id),
        k.text(other, document.id),
        k.pages(other, document.id),
        k.chunks(other, document.id),
        k.original(other, document.id),
        k.page_image(other, document.id, 1),
        k.collection(other, "Mine"),
        k.delete_collection(other, "Mine"),
    ):
        with pytest.raises(Missing):
            await attempt
    assert await k.tags(other) == []
    assert (await k.counts(other))["documents"] == 0
    again, _ = await library.upload(other, TEXT)
    assert not again.duplicate
    assert await k.get(scope, document.id) == document


async def test_counts(library: Any, scope: Scope) -> None:
    await library.add(scope, TEXT)
    await library.upload(scope, "more")
    assert await library.knowledge.counts(scope) == {
        "documents": 2,
        "bytes": len(TEXT) + 4,
        "states": {"queued": 1, "ready": 1},
        "chunks": 3,
        "vectors": 3,
    }


async def test_a_span_beyond_the_text_is_cut_and_a_wrong_one_refused(library: Any, scope: Scope) -> None:
    document = await library.add(scope, "Überall \U0001f30a Wasser")
    part = await library.knowledge.text(scope, document.id, 8, 100)
    assert (part.text, part.start, part.end, part.total) == ("\U0001f30a Wasser", 8, 16, 16)
    assert (await library.knowledge.text(scope, document.id, 99, 120)).text == ""
    with pytest.raises(Invalid):
        await library.knowledge.text(scope, document.id, 5, 3)
    unread, _ = await library.upload(scope, "other")
    with pytest.raises(Conflict):
        await library.knowledge.text(scope, unread.id)


async def test_pages_of_a_pdf_have_pictures_and_marks(library: Any, scope: Scope) -> None:
    k = library.knowledge
    document = await library.add(scope, "%PDF-1.7 first page\fsecond page")
    assert await k.page_image(scope, document.id, 2, start=20, end=26, width=800) == b"page 2: 20-26, 800"
    assert (await k.page_marks(scope, document.id, 2, start=20, end=26))["height"] == 2
    with pytest.raises(Missing):
        await k.page_image(scope, document.id, 3)
    text = await library.add(scope, "first page\fsecond page")
    with pytest.raises(Invalid, match="Only pages of a PDF"):
        await k.page_image(scope, text.id, 1)


# -- changing


@pytest.mark.parametrize("name", ["  ", "\u200b", "/", "..", "a/\u202e"])
async def test_a_document_is_not_renamed_to_nothing(library: Any, scope: Scope, name: str) -> None:
    document, _ = await library.upload(scope, "text", "kept.txt")
    with pytest.raises(Invalid, match="needs a name"):
        await library.knowledge.update(scope, document.id, name=name)
    assert (await library.knowledge.get(scope, document.id)).name == "kept.txt"


async def test_a_document_is_renamed_tagged_and_moved(library: Any, scope: Scope) -> None:
    document = await library.add(scope, TEXT, tags=["old"])
    changed = await library.knowledge.update(
        scope, document.id, name="../../New\u202ename.txt", tags=["new"], collection="Archive"
    )
    assert (changed.name, changed.tags, changed.collection) == ("Newname.txt", ("new",), "Archive")
    assert (await library.knowledge.list(scope, q="newname"))[0] == [changed]
    assert [tag.name for tag in await library.knowledge.tags(scope)] == ["new"]
    twin, _ = await library.upload(scope, TEXT)
    with pytest.raises(Conflict):
        await library.knowledge.update(scope, twin.id, collection="archive")


async def test_deleting_leaves_nothing(library: Any, scope: Scope) -> None:
    kept = await library.add(scope, "kept words")
    document = await library.add(scope, TEXT, tags=["t"])
    await library.knowledge.delete(scope, document.id)
    with pytest.raises(Missing):
        await library.knowledge.get(scope, document.id)
    assert await library.knowledge.counts(scope) == {
        "documents": 1, "bytes": 10, "states": {"ready": 1}, "chunks": 1, "vectors": 1,
    }  # fmt: skip
    assert {key.split("/")[2] for key in await library.keys()} == {kept.id}
    for table in ("document_tags", "blob_trash"):
        assert await library.table(table) == 0
    assert await library.table("chunks") == 1


async def test_deleting_stops_the_job(library: Any, scope: Scope) -> None:
    document, job_id = await library.upload(scope, TEXT)
    await library.knowledge.delete(scope, document.id)
    assert (await library.jobs.get(scope, job_id)).state == "cancelled"


async def test_reprocessing_while_it_is_read_is_the_same_job(library: Any, scope: Scope) -> None:
    document, job_id = await library.upload(scope, TEXT)
    assert (await library.knowledge.reprocess(scope, document.id))[1] == job_id
    await library.run(scope, job_id)
    again, second = await library.knowledge.reprocess(scope, document.id)
    assert second != job_id
    assert (again.state, again.searchable) == ("queued", "meaning")


# -- collections


async def test_collections(library: Any, scope: Scope) -> None:
    k = library.knowledge
    assert [each.name for each in await k.collections(scope)] == ["default"]
    made = await k.create_collection(scope, "  Field\u202e notes ")
    assert made.name == "Field notes"
    with pytest.raises(Conflict):
        await k.create_collection(scope, "FIELD NOTES")
    await library.add(scope, TEXT, collection=" field\t NOTES ")
    await library.add(scope, "elsewhere")
    assert (await k.collection(scope, made.id)).documents == 1
    await k.delete_collection(scope, "Field notes")
    assert [(each.name, each.documents) for each in await k.collections(scope)] == [("default", 1)]
    await k.delete_collection(scope, "default")
    assert [(each.name, each.documents) for each in await k.collections(scope)] == [("default", 0)]
    assert not await library.keys()
    with pytest.raises(Invalid):
        await k.create_collection(scope, "\u200b ")


# -- names and texts


@given(st.text(max_size=600))
def test_any_name_becomes_a_harmless_one(given_name: str) -> None:
    name = naming.file_name(given_name)
    assert 1 <= len(name) <= 255
    assert not set(name) & set("/\\\x00\n\u202e\u2066\ufeff")
    assert name.strip(".")
    assert naming.file_name(name) == name


@given(st.text(st.characters(), max_size=50), st.integers(0, 50), st.integers(0, 50))
def test_any_span_of_a_text_is_a_slice_of_its_bytes(text: str, one: int, two: int) -> None:
    width, data = texts.encode(text)
    start, end = sorted((min(one, len(text)), min(two, len(text))))
    assert texts.decode(data[width * start : width * end], width) == text[start:end]
