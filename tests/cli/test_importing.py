"""`terrace import` as a person types it."""

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.moving.mongo_qdrant.conftest import Records

Import = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
async def places(tmp_path: Path) -> tuple[str, ...]:
    records = await Records.made(6)
    dump, store = records.dump(tmp_path / "dump"), records.local(tmp_path / "store")
    return "--mongo", str(dump), "--qdrant", str(store)


@pytest.fixture
def importing(quickly: Run, tmp_path: Path) -> Import:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return quickly("import", *arguments, on=tmp_path / "data", NO_COLOR="1")

    return run


def told(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_from_a_guess_to_documents_and_back(importing: Import, places: tuple[str, ...], tmp_path: Path) -> None:
    guessed = importing("mongo-qdrant", "--guess", *places)
    assert guessed.returncode == 0, guessed.stderr
    assert tomllib.loads(guessed.stdout)["documents"]["collection"] == "app.documents"
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(guessed.stdout)
    named = ("mongo-qdrant", "--mapping", str(mapping), *places)
    plan = importing(*named, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "documents\t6\t6" in plan.stdout
    assert "embedded anew" in plan.stdout
    report = told(importing(*named, "--json"))
    assert (report["state"], report["came"]["documents"], report["came"]["chunks"]) == ("verified", 6, 18)
    [listed] = told(importing("list", "--json"))
    assert (listed["id"], listed["state"], listed["documents"]) == (report["id"], "verified", 6)
    shown = importing("show", report["id"])
    assert [json.loads(line)["metadata"]["author"]["age"] for line in shown.stdout.splitlines()] == [*range(6)]
    back = told(importing("mongo-qdrant", "--rollback", report["id"], "--json"))
    assert back == {"id": report["id"], "state": "rolled_back", "documents": 6}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--dry-run",), 2, "--guess"),
        (("--guess",), 2, "--mongo"),
        (("--guess", "--mongo", "/nowhere"), 4, "not there"),
        (("--rollback", "imp_0"), 4, "no such import"),
        (("--rollback", "imp_0", "--tenant", "nobody"), 4, "No tenant is named nobody"),
        (("--rollback", "imp_0", "--tenant", "tnt_0"), 4, "tenant"),
    ],
)
def test_failures_end_with_a_sentence(importing: Import, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    done = importing("mongo-qdrant", *arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_on_the_way_is_never_shown(terrace: Run) -> None:
    address = "mongodb://ada:s3cret@127.0.0.1:1/?serverSelectionTimeoutMS=50"
    done = terrace("import", "mongo-qdrant", "--guess", "--mongo", address)
    assert done.returncode == 7
    assert "s3cret" not in done.stderr + done.stdout
