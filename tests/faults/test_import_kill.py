"""`kill -9` again and again while documents are imported: each comes once, and all of them do."""

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import start
from tests.moving.mongo_qdrant.conftest import MAPPING, Records

from terrace.moving.mongo_qdrant.mapping import checked, written

DOCUMENTS = 800
KILLS = 4

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def test_killed_imports_lose_and_double_nothing(tmp_path: Path) -> None:
    records = asyncio.run(Records.made(DOCUMENTS))
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(written(checked(MAPPING, "test")))
    places = (
        "--mongo",
        str(records.dump(tmp_path / "dump")),
        "--qdrant",
        str(records.lines(tmp_path / "points.jsonl")),
    )
    arguments = ("import", "mongo-qdrant", "--mapping", str(mapping), *places, "--json")
    data = tmp_path / "data"
    stops: list[int] = []
    for _ in range(KILLS):
        with start(data, *arguments, *(("--resume",) if begun(data) else ())) as process:
            until = came(data) + DOCUMENTS // (KILLS + 2)
            while process.poll() is None and came(data) < until:
                time.sleep(0.02)
            process.kill()
        stops.append(came(data))
    assert stops == sorted(stops)
    assert 0 < stops[0] < DOCUMENTS, "it was not killed in the midst of it"
    with start(data, *arguments, "--resume") as process:
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    report: dict[str, Any] = json.loads(out)
    assert report["state"] == "verified", report["checks"]
    assert report["came"]["documents"] == DOCUMENTS
    rows = asked(data, "SELECT title, count(*) FROM chunks GROUP BY document_id")
    assert len(rows) == DOCUMENTS
    assert {count for _, count in rows} == {3}
    assert len({title for title, _ in rows}) == DOCUMENTS


def begun(data: Path) -> bool:
    return bool(asked(data, "SELECT 1 FROM imports"))


def came(data: Path) -> int:
    return int((asked(data, "SELECT count(*) FROM documents") or [(0,)])[0][0])


def asked(data: Path, query: str) -> list[Any]:
    """Of its database as another process sees it; nothing while it is not there yet."""
    try:
        with closing(sqlite3.connect(f"file:{data / 'terrace.db'}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []
