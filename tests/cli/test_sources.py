"""`terrace source` against a server that may read one folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Run, start


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    (folder / "tide.txt").write_text("The tide comes at noon.")
    (folder / "empty.txt").write_text("")
    return folder


@pytest.fixture(scope="module", autouse=True)
def served(data: Path, folder: Path) -> Iterator[None]:
    with start(data, "serve", TERRACE_SCHEDULES__FOLDERS=json.dumps([str(folder)])) as process:
        assert process.stdout is not None
        assert "ready at" in process.stdout.readline()
        yield
        process.terminate()
        assert process.wait(60) == 0


def test_a_folder_is_added_run_looked_at_and_removed(quickly: Run, folder: Path) -> None:
    added = quickly("source", "add", str(folder), "--name", "tides", "--every", "1h", "--json")
    source = json.loads(added.stdout)
    assert (source["kind"], source["location"]) == ("folder", str(folder))
    done = quickly("source", "run", "tides")
    assert done.returncode == 2  # one of the two can't be read
    assert "1 added, 1 failed" in done.stdout
    assert "x empty.txt: This file is empty" in done.stdout
    assert "tide.txt\tadded\tdoc_" in quickly("source", "items", "tides").stdout
    assert source["id"] in quickly("source", "list").stdout
    assert quickly("source", "remove", "tides", "--documents", "--yes").returncode == 0
    assert quickly("source", "list").stdout.startswith("There are no sources")
    assert quickly("source", "run", "tides").returncode == 4


def test_what_cannot_be_a_source_is_told(quickly: Run) -> None:
    refused = quickly("source", "add", "/etc")
    assert (refused.returncode, "TERRACE_SCHEDULES__FOLDERS" in refused.stderr) == (2, True)
    unclear = quickly("source", "add", "https://example.org/")
    assert (unclear.returncode, "--kind url" in unclear.stderr) == (2, True)
