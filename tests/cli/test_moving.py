"""`terrace move`, `backup`, `restore` and `verify`, as they are typed."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import Done, invoke

from terrace.cli.app import EXIT

Terrace = Callable[..., Done]


@pytest.fixture
def data(migrated: Path, tmp_path: Path) -> Path:
    """A data folder with a database that has tables and a collection, and a file."""
    folder = tmp_path / "data"
    (folder / "blobs" / "acme").mkdir(parents=True)
    (folder / "blobs" / "acme" / "file").write_bytes(b"content")
    shutil.copy(migrated, folder / "terrace.db")
    with closing(sqlite3.connect(folder / "terrace.db")) as connection:
        connection.execute("INSERT INTO collections VALUES ('col_1', 'acme', 'Quay', 'quay', 1.0, 0)")
        connection.commit()
    return folder


@pytest.fixture
def terrace(data: Path) -> Terrace:
    def run(*words: str, folder: Path = data) -> Done:
        return invoke({"TERRACE_DATA": str(folder), "TERRACE_STORAGE__URL": ""}, *words)

    return run


def test_a_database_is_moved_caught_up_with_and_taken_back(terrace: Terrace, data: Path, tmp_path: Path) -> None:
    there = f"sqlite:///{tmp_path / 'there.db'}"
    planned = terrace("move", "here", there, "--dry-run")
    assert planned.code == 0, planned
    assert "collections" in planned.out
    assert "Nothing was written" in planned.out
    moved = terrace("move", "here", there, "--json")
    assert moved.code == 0, moved
    told = msgspec.json.decode(moved.out)
    assert told["tables"]["collections"]["rows"] == 1
    manifest = Path(told["manifest"])
    assert manifest.stat().st_mode & 0o777 == 0o600
    assert terrace("verify", str(manifest)).code == 0
    again = terrace("move", "here", there)
    assert "--resume" in again.err
    resumed = terrace("move", "here", there, "--resume")
    assert "moved and proved equal" in resumed.out
    assert "is empty again" in terrace("move", "here", there, "--rollback").out
    assert not (tmp_path / "there.db").exists()
    manifest.write_bytes(manifest.read_bytes().replace(b'"rows": 1', b'"rows": 2'))
    forged = terrace("verify", str(manifest))
    assert forged.code == 1
    assert "Not signed by this installation" in forged.out


def test_files_are_moved_and_taken_back(terrace: Terrace, tmp_path: Path) -> None:
    there = tmp_path / "files"
    assert "files" in terrace("move", "here", str(there), "--dry-run").out
    assert not list(there.rglob("*"))
    moved = terrace("move", "here", str(there))
    assert moved.code == 0, moved
    assert "1 file (7 B) moved and proved equal" in moved.out
    assert (there / "acme" / "file").read_bytes() == b"content"
    assert "1 file removed" in terrace("move", "here", str(there), "--rollback").out


def test_files_that_came_since_are_brought_over(terrace: Terrace, data: Path, tmp_path: Path) -> None:
    there = tmp_path / "files"
    assert terrace("move", "here", str(there)).code == 0
    (data / "blobs" / "acme" / "late").write_bytes(b"late")
    resumed = terrace("move", "here", str(there), "--resume")
    assert "2 files" in resumed.out, resumed
    assert (there / "acme" / "late").read_bytes() == b"late"


def test_a_backup_says_what_it_holds_and_comes_back(terrace: Terrace, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "terrace.tar"
    made = terrace("backup", str(file))
    assert made.code == 0, made
    assert "1 row and 1 file" in made.out
    assert "It holds the secret" in made.out
    assert file.stat().st_mode & 0o777 == 0o600
    assert "Signed by this installation" in terrace("verify", str(file)).out
    new = tmp_path / "new"
    restored = terrace("restore", str(file), folder=new)
    assert restored.code == 0, restored
    assert (new / "blobs" / "acme" / "file").read_bytes() == b"content"
    assert (new / "secret").read_bytes() == (data / "secret").read_bytes()
    refused = terrace("restore", str(file), folder=new)
    assert "not empty" in refused.err
    bare = terrace("backup", str(tmp_path / "bare.tar"), "--no-secret")
    assert "is not in it" in bare.out


def test_nothing_begins_on_half_of_what_is_being_restored(terrace: Terrace, data: Path, tmp_path: Path) -> None:
    (data / "restoring").write_text("bak_1")
    for words in (("doctor",), ("backup", str(tmp_path / "half.tar")), ("move", "here", str(tmp_path / "files"))):
        refused = terrace(*words)
        assert "restore FILE --resume" in refused.err, words
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data"]


def test_places_that_do_not_fit_are_told(terrace: Terrace, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("This is a text, and no database at all.")
    for words in (
        ("here", "here"),
        ("here", "mysql://root@localhost/x"),
        (f"sqlite:///{tmp_path}/a.db", str(tmp_path / "folder")),
        ("here", str(tmp_path / "x"), "--resume", "--rollback"),
        (f"sqlite:///{tmp_path}/nowhere.db", f"sqlite:///{tmp_path}/b.db"),
        ("here", f"{tmp_path}/data/blobs/inner"),
        ("s3://files/one/two", "s3://files/one"),
        (f"{tmp_path}/nowhere", f"{tmp_path}/elsewhere"),
        ("here", f"sqlite:///{tmp_path}/words.txt"),
        ("here", "postgresql://ada:a@hunter22@127.0.0.1:1/x"),
        ("here", "postgresql://ada:a/hunter22@127.0.0.1:1/x"),
    ):
        told = terrace("move", *words)
        assert told.code in (EXIT["invalid"], EXIT["missing"], EXIT["unavailable"]), told
        assert "hunter22" not in told.err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "words.txt"]
    assert terrace("verify", str(tmp_path / "none")).code != 0
