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
def terrace(quickly: Run, tmp_path: Path) -> Import:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return quickly("import", *arguments, on=tmp_path / "data", NO_COLOR="1")

    return run


def told(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_from_a_guess_to_documents_and_back(terrace: Import, places: tuple[str, ...], tmp_path: Path) -> None:
    guessed = terrace("mongo-qdrant", "--guess", *places)
    assert guessed.returncode == 0, guessed.stderr
    assert tomllib.loads(guessed.stdout)["documents"]["collection"] == "app.documents"
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(guessed.stdout)
    named = ("mongo-qdrant", "--mapping", str(mapping), *places)
    plan = terrace(*named, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "documents\t6\t6" in plan.stdout
    assert "embedded anew" in plan.stdout
    report = told(terrace(*named, "--json"))
    assert (report["state"], report["came"]["documents"], report["came"]["chunks"]) == ("verified", 6, 18)
    [listed] = told(terrace("list", "--json"))
    assert (listed["id"], listed["state"], listed["documents"]) == (report["id"], "verified", 6)
    shown = terrace("show", report["id"])
    assert [json.loads(line)["metadata"]["author"]["age"] for line in shown.stdout.splitlines()] == [*range(6)]
    back = told(terrace("mongo-qdrant", "--rollback", report["id"], "--json"))
    assert back == {"id": report["id"], "state": "rolled_back", "documents": 6}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--dry-run",), 2, "--guess"),
        (("--guess",), 2, "--mongo"),
        (("--guess", "--mongo", "/nowhere"), 4, "not there"),
        (("--rollback", "imp_0"), 4, "no such import"),
    ],
)
def test_failures_end_with_a_sentence(terrace: Import, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    done = terrace("mongo-qdrant", *arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_on_the_way_is_never_shown(terrace: Import) -> None:
    done = terrace(
        "mongo-qdrant", "--guess", "--mongo", "mongodb://ada:s3cret@127.0.0.1:1/?serverSelectionTimeoutMS=50"
    )
    assert done.returncode == 7
    assert "s3cret" not in done.stderr + done.stdout
