"""`terrace up --postgres` in a process of its own: its database ends with it, and is there again after a kill -9."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tests.cli.conftest import start

from terrace.cli.app import EXIT
from terrace.storage.postgresql.server import PrivateServer

pytestmark = pytest.mark.faults


def _ready(process: object) -> str:
    lines = [process.stdout.readline(), process.stdout.readline()]  # type: ignore[attr-defined]
    assert "PostgreSQL runs in" in lines[0], process.communicate()  # type: ignore[attr-defined]
    assert "ready at" in lines[1], lines
    return lines[1]


@pytest.fixture
def place() -> Iterator[Path]:
    """Where root's server, which runs as somebody else, can come to; pytest closes its own folders."""
    with TemporaryDirectory(prefix="terrace-up-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _is_ready(told: str) -> None:
    """Within a while, as it looks for its database once in some seconds."""
    url = told.split("ready at ")[1].split()[0]
    until = time.monotonic() + 60
    while True:
        try:
            with urlopen(f"{url}/ready", timeout=60) as answer:
                assert answer.status == 200
                return
        except HTTPError:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_what_was_kept_in_sqlite_is_brought_along(place: Path) -> None:
    data = place / "data"

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        with start(data, *words) as process:
            out, err = process.communicate(timeout=120)
            return subprocess.CompletedProcess(words, process.returncode, out, err)

    try:
        assert run("doctor").returncode == 0  # which makes a database
        refused = run("up", "--postgres")
        assert refused.returncode == EXIT["conflict"]
        assert "terrace move here private" in refused.stderr
        moved = run("move", "here", "private")
        assert "proved equal" in moved.stdout, moved.stderr
        with start(data, "up", "--postgres") as process:
            _ready(process)
            process.terminate()
            assert process.wait(30) == 0
        back = run("move", "private", f"sqlite:///{place / 'back.db'}")
        assert "proved equal" in back.stdout, back.stderr
    finally:
        PrivateServer(data / "postgres").stop()


def test_the_database_comes_and_goes_with_the_server(place: Path) -> None:
    data = place / "data"
    pid_file = data / "postgres" / "data" / "postmaster.pid"
    try:
        with start(data, "up", "--postgres") as process:
            _ready(process)
            assert not (data / "terrace.db").exists()
            process.terminate()
            assert process.wait(30) == 0
        assert not pid_file.exists()
        with start(data, "up", "--postgres") as process:
            told = _ready(process)
            with start(data, "up", "--postgres") as second:
                assert second.wait(30) == EXIT["conflict"]
                assert "already" in second.communicate()[1]
            _is_ready(told)  # and still has its database
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
            assert any("runs again" in line for line in process.stderr)  # type: ignore[union-attr]
            _is_ready(told)
            left = pid_file.read_text().split()[0]
            os.kill(process.pid, signal.SIGKILL)
        with start(data, "up", "--postgres") as process:
            _ready(process)
            assert pid_file.read_text().split()[0] == left, "what was left running is taken over"
            process.send_signal(signal.SIGINT)
            process.wait(30)
        assert not pid_file.exists()
    finally:
        PrivateServer(data / "postgres").stop()
