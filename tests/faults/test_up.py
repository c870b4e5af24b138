"""`terrace up --postgres` in a process of its own: its database ends with it, and is there again after a kill -9."""

import os
import signal
from pathlib import Path
from tempfile import gettempdir

import pytest
from tests.cli.conftest import start

from terrace.storage.postgresql.server import PrivateServer

pytestmark = pytest.mark.faults


def _ready(process: object) -> str:
    lines = [process.stdout.readline(), process.stdout.readline()]  # type: ignore[attr-defined]
    assert "PostgreSQL runs in" in lines[0], lines
    assert "ready at" in lines[1], lines
    return lines[1]


def test_the_database_comes_and_goes_with_the_server(tmp_path: Path) -> None:
    for each in (tmp_path, *tmp_path.parents):  # root's server runs as somebody else
        if each.is_relative_to(gettempdir()):
            each.chmod(each.stat().st_mode | 0o001)
    data = tmp_path / "data"
    pid_file = data / "postgres" / "data" / "postmaster.pid"
    try:
        with start(data, "up", "--postgres") as process:
            _ready(process)
            assert not (data / "terrace.db").exists()
            process.terminate()
            assert process.wait(30) == 0
        assert not pid_file.exists()
        with start(data, "up", "--postgres") as process:
            _ready(process)
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
