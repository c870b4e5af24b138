"""Qdrant: a server over REST, the local mode of its client, its files, and what only a server can read."""

import io
import json
import pickle
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.moving.mongo_qdrant.conftest import Records
from tests.moving.mongo_qdrant.wire import QdrantWire

from terrace.errors import Invalid, Missing, Unavailable
from terrace.moving.mongo_qdrant.base import Points, Space
from terrace.moving.mongo_qdrant.sources.opening import open_points
from terrace.moving.mongo_qdrant.sources.qdrant_server import QdrantServer


async def read(source: Points, name: str = "points", limit: int | None = None) -> dict[str, Any]:
    points = [point async for batch in source.read(name, limit) for point in batch]
    assert len({point.id for point in points}) == len(points)
    return {point.id: point for point in points}


def alike(found: dict[str, Any], records: Records, vector: str = "") -> None:
    assert set(found) == {each["id"] for each in records.points}
    for each in records.points:
        assert found[each["id"]].payload == each["payload"]
        norm = sum(value**2 for value in each["vector"]) ** 0.5
        theirs = found[each["id"]].vectors[vector]
        length = sum(value**2 for value in theirs) ** 0.5
        assert [value / length for value in theirs] == pytest.approx(
            [value / norm for value in each["vector"]], abs=1e-5
        )


async def test_json_lines(records: Records, tmp_path: Path) -> None:
    source = open_points(str(records.lines(tmp_path / "points.jsonl")))
    [collection] = await source.collections()
    assert (collection.name, collection.spaces) == ("points", (Space("", 64, "Cosine"),))
    alike(await read(source), records)
    assert len(await read(source, limit=4)) == 4
    with pytest.raises(Missing):
        await read(source, "others")


async def test_answers_of_a_scroll_as_lines(records: Records, tmp_path: Path) -> None:
    pages = [{"result": {"points": records.points[at : at + 10], "next_page_offset": None}} for at in range(0, 36, 10)]
    (tmp_path / "points.jsonl").write_text("\n".join(map(json.dumps, pages)))
    alike(await read(open_points(str(tmp_path / "points.jsonl"))), records)


@pytest.mark.parametrize("line", ["{", "[]", '{"result": {"points": [{"vector": []}]}}', "7"])
async def test_a_line_that_is_no_point(tmp_path: Path, line: str) -> None:
    (tmp_path / "points.jsonl").write_text(line + "\n")
    with pytest.raises(Invalid, match="line 1"):
        await read(open_points(str(tmp_path / "points.jsonl")))


@pytest.mark.parametrize("vector", ["", "text"])
async def test_a_local_store_is_read_without_its_client(records: Records, tmp_path: Path, vector: str) -> None:
    folder = records.local(tmp_path / "store", vector=vector)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    source = open_points(str(folder))
    [collection] = await source.collections()
    assert (collection.name, collection.count, collection.spaces) == ("points", 36, (Space(vector, 64, "Cosine"),))
    alike(await read(source), records, vector)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


async def test_a_local_store_that_was_tampered_with_runs_nothing(records: Records, tmp_path: Path) -> None:
    folder = records.local(tmp_path / "store")

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    with sqlite3.connect(folder / "collection" / "points" / "storage.sqlite") as store:
        store.execute("UPDATE points SET point = ?", (pickle.dumps(Evil()),))
    store.close()
    with pytest.raises(Invalid, match="tampered"):
        await read(open_points(str(folder)))
    assert not (tmp_path / "ran").exists()


async def test_a_damaged_local_store(records: Records, tmp_path: Path) -> None:
    folder = records.local(tmp_path / "store")
    with sqlite3.connect(folder / "collection" / "points" / "storage.sqlite") as store:
        store.execute("UPDATE points SET point = ?", (b"\x80\x04nonsense",))
    store.close()
    with pytest.raises(Invalid, match="damaged"):
        await read(open_points(str(folder)))


async def test_the_clients_local_mode_answers_as_a_server_does(records: Records, tmp_path: Path) -> None:
    from qdrant_client import AsyncQdrantClient

    source = QdrantServer(AsyncQdrantClient(path=str(records.local(tmp_path / "store"))))
    [collection] = await source.collections()
    assert (collection.name, collection.count, collection.spaces) == ("points", 36, (Space("", 64, "Cosine"),))
    alike(await read(source), records)
    assert len(await read(source, limit=5)) == 5
    await source.close()


async def test_a_server_is_scrolled_to_its_end() -> None:
    records = await Records.made(300)
    wire = QdrantWire("points", records.points, 64, key="s3cret")
    async with wire.serving() as address:
        source = open_points(address, "s3cret")
        [collection] = await source.collections()
        assert (collection.count, collection.spaces) == (900, (Space("", 64, "Cosine"),))
        alike(await read(source), records)
        with pytest.raises(Missing):
            await read(source, "others")
        await source.close()
        refused = open_points(address, "another")
        with pytest.raises(Invalid, match="QDRANT_API_KEY"):
            await refused.collections()
        await refused.close()
    assert len([each for each in wire.asked if each.endswith("/scroll")]) == 4


async def test_a_server_that_fails_on_the_way() -> None:
    records = await Records.made(300)
    wire = QdrantWire("points", records.points, 64)
    wire.fails_at = 3
    async with wire.serving() as address:
        source = open_points(address)
        with pytest.raises(Unavailable, match="500"):
            await read(source)
        await source.close()
    gone = open_points(address)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await gone.collections()
    await gone.close()


def snapshot(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return path


def test_a_snapshot_says_what_it_holds_and_where_to_go(tmp_path: Path) -> None:
    config = json.dumps({"params": {"vectors": {"size": 384, "distance": "Cosine"}}})
    path = snapshot(tmp_path / "a.snapshot", {"0/segments/x.tar": "", "config.json": config, "version.info": "1.13"})
    with pytest.raises(Invalid, match=r"384 dimensions, Cosine.*recover.*scroll"):
        open_points(str(path))
    with pytest.raises(Invalid, match="no snapshot"):
        open_points(str(snapshot(tmp_path / "b.tar", {"readme": "x"})))


def test_what_is_no_qdrant(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        open_points(str(tmp_path / "nothing"))
    with pytest.raises(Invalid, match="server's address"):
        open_points(str(tmp_path))
    (tmp_path / "meta.json").write_text("[]")
    with pytest.raises(Invalid, match=r"meta\.json"):
        open_points(str(tmp_path))
