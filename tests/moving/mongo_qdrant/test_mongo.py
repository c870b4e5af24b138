"""MongoDB: dumps in each of their forms, and a server's wire protocol."""

from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from tests.moving.mongo_qdrant.conftest import Records
from tests.moving.mongo_qdrant.wire import MongoWire

from terrace.errors import Invalid, Missing, Unavailable
from terrace.moving.mongo_qdrant.base import Documents
from terrace.moving.mongo_qdrant.sources.opening import described, open_documents


async def read(source: Documents, name: str, limit: int | None = None) -> list[Any]:
    return [record async for batch in source.read(name, limit) for record in batch]


async def everything(source: Documents) -> list[Any]:
    return [record for name in await source.collections() for record in await read(source, name)]


@pytest.mark.parametrize("form", ["folder", "folder zipped", "archive", "archive zipped"])
async def test_a_dump_gives_back_what_went_in(records: Records, tmp_path: Path, form: str) -> None:
    zipped = form.endswith("zipped")
    path = tmp_path / "dump"
    where = records.dump(path, zipped=zipped) if "folder" in form else records.archive(path, zipped=zipped)
    source = open_documents(str(where))
    assert await source.collections() == ["app.chunks", "app.documents"]
    assert await read(source, "app.documents") == records.documents
    assert await read(source, "app.chunks") == records.chunks
    assert await read(source, "app.chunks", 7) == records.chunks[:7]
    with pytest.raises(Missing, match=r"app\.documents"):
        await read(source, "app.nothing")


async def test_the_folder_of_one_database_will_do(records: Records, tmp_path: Path) -> None:
    source = open_documents(str(records.dump(tmp_path / "dump") / "app"))
    assert len(await read(source, "app.documents")) == 12


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("damage", ["cut", "length"])
async def test_a_damaged_dump_says_so(records: Records, tmp_path: Path, form: str, damage: str) -> None:
    where = records.dump(tmp_path / "dump") if form == "folder" else records.archive(tmp_path / "dump")
    path = where / "app" / "chunks.bson" if form == "folder" else where
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-len(data) // 3 :]
    else:
        at = len(data) // 2
        data[at : at + 200] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(Invalid, match=r"Dump it again|cut off"):
        await everything(open_documents(str(where)))


async def test_a_gzip_that_breaks_off(records: Records, tmp_path: Path) -> None:
    path = records.archive(tmp_path / "dump.gz", zipped=True)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(Invalid, match="unpack"):
        await read(open_documents(str(path)), "app.chunks")


def test_what_is_no_dump(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        open_documents(str(tmp_path / "nothing"))
    with pytest.raises(Missing, match=r"\.bson"):
        open_documents(str(tmp_path))
    (tmp_path / "file").write_text("text")
    with pytest.raises(Invalid, match="archive"):
        open_documents(str(tmp_path / "file"))
    with pytest.raises(Invalid, match="MongoDB"):
        open_documents("mongodb://")


def test_addresses_are_shown_without_their_secrets() -> None:
    assert described("mongodb://ada:s3cret@db.example:27017/app?authSource=admin") == "mongodb://db.example:27017/app"


async def test_a_server_is_read_by_its_wire_protocol(tmp_path: Path) -> None:
    records = await Records.made(400)
    wire = MongoWire({"app.documents": records.documents, "app.chunks": records.chunks, "app.system.views": []})
    async with wire.serving() as address:
        source = open_documents(address)
        assert await source.collections() == ["app.chunks", "app.documents"]
        assert await source.count("app.chunks") == 1200
        assert await read(source, "app.documents") == records.documents
        assert len(await read(source, "app.chunks")) == 1200
        assert len(await read(source, "app.chunks", 5)) == 5
        with pytest.raises(Missing):
            await read(source, "app.nothing")
        await source.close()
    assert "getMore" in wire.commands


async def test_a_server_that_goes_away_while_it_is_read() -> None:
    records = await Records.made(400)
    wire = MongoWire({"app.chunks": records.chunks}, cut_after=2)
    async with wire.serving() as address:
        source = open_documents(address)
        with pytest.raises(Unavailable, match="--resume") as raised:
            await read(source, "app.chunks")
        assert "127.0.0.1" not in str(raised.value)
        await source.close()


def test_ids_of_both_systems_are_compared_as_text() -> None:
    from uuid import UUID

    from bson import Binary

    from terrace.moving.mongo_qdrant.fields import key

    id = "7c2b9a52-5a3f-4f0e-9d0a-3b7ad3c0a111"
    assert key(UUID(id)) == key(id) == key(Binary.from_uuid(UUID(id)))
    assert key(ObjectId("0" * 24)) == "0" * 24
    assert key(7) == key(7.0) == key("7")
    assert key(None) == key(True) == ""
