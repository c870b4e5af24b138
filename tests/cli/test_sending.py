"""What stands between a path and an upload."""

import socket
from pathlib import Path

import pytest
from rich.progress import Progress

from terrace.cli.client import Client
from terrace.cli.files import files_of
from terrace.cli.ingesting import send
from terrace.errors import Invalid, Missing


def test_a_file_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    gone = send(Client("http://127.0.0.1:1"), [tmp_path / "gone.txt", tmp_path], {}, Progress(disable=True))
    assert [(each.error or {})["code"] for each in gone] == ["unreadable", "unreadable"]
    assert "No such file" in (gone[0].error or {})["message"]


def test_hidden_files_count_only_when_they_are_named(tmp_path: Path) -> None:
    for name in ("a.txt", ".b.txt", ".c/d/e/f/g.txt", "h/.i/j.txt", "h/k.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [path.name for path in files_of(str(tmp_path))] == ["a.txt", "k.txt"]
    assert [path.name for path in files_of(f"{tmp_path}/**/*.txt")] == ["a.txt", "k.txt"]
    assert [path.name for path in files_of(f"{tmp_path}/.b.txt")] == [".b.txt"]
    assert [path.name for path in files_of(f"{tmp_path}/.c")] == ["g.txt"]


def test_ten_thousand_files(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05}.txt").touch()
    assert len(files_of(str(tmp_path))) == len(files_of(f"{tmp_path}/*.txt")) == 10_000


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        with pytest.raises(Invalid, match="neither a file nor a folder"):
            files_of(str(tmp_path / "s"))
    with pytest.raises(Missing, match="There is no"):
        files_of(str(tmp_path / "none"))


@pytest.mark.parametrize("address", ["", "ftp://x", "http://", "http://x:port", "http://x:0", "http://x:99999"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(Invalid):
        Client(address)


def test_an_address_may_have_a_path_and_never_shows_a_password() -> None:
    assert Client("https://me:secret@host:1/terrace/").url == "https://host:1/terrace"
    assert Client("host").url == "http://host"
