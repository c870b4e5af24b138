"""`terrace up`: the server, and on this machine the database it needs."""

import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from terrace.cli.output import note, say
from terrace.cli.serve import Host, Insecure, Open, Port, start
from terrace.errors import Conflict, Invalid, Unavailable
from terrace.settings import Settings

if TYPE_CHECKING:
    from terrace.storage.postgresql.server import PrivateServer

LOOK_SECONDS = 2.0

Postgres = Annotated[
    bool, typer.Option("--postgres", help="Start a private PostgreSQL in the data folder, and keep everything there.")
]


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    postgres: Postgres = False, host: Host = None, port: Port = None, insecure: Insecure = False, open: Open = False
) -> None:
    """Start the server; with --postgres, over a PostgreSQL of its own, which ends with it."""
    options = {"host": host, "port": port, "insecure": insecure or None}
    given = {name: value for name, value in options.items() if value is not None}
    settings = Settings.load(**given)
    if not postgres:
        start(settings, open=open)
        return
    if settings.storage.url:
        raise Invalid("storage.url names a database already: leave --postgres out, or TERRACE_STORAGE__URL.")
    with running(settings) as server:
        _nothing_left_behind(settings, server)
        say(f"PostgreSQL runs in {server.folder}; its address for other commands is in the file url there.")
        sys.stdout.flush()
        start(Settings.load(**given, storage={"url": server.url}), open=open)


def _nothing_left_behind(settings: Settings, server: "PrivateServer") -> None:
    """Raises Conflict where one would find an empty installation in place of one's own."""
    before = settings.data / "terrace.db"
    if before.exists() and server.untouched():
        raise Conflict(
            f"What is kept in {settings.data} is in SQLite. `terrace move here private` brings it into the private "
            f"PostgreSQL first; or name an empty folder in TERRACE_DATA, or move {before} away.",
            code="sqlite_in_use",
        )


@contextmanager
def running(settings: Settings) -> Iterator["PrivateServer"]:
    """The private PostgreSQL, for as long as it is needed. Raises Conflict where another process has it."""
    from terrace.assembly import check
    from terrace.storage.postgresql.server import PrivateServer

    check(settings)
    folder = settings.data / "postgres"
    with _alone(settings.data / "postgres.lock", folder):
        server = PrivateServer(folder)
        previous = signal.signal(signal.SIGTERM, _end)  # until the service listens to it, and after
        try:
            server.start()
            with _tended(server):
                yield server
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nobody interrupts the end
            server.stop()
            signal.signal(signal.SIGTERM, previous)


@contextmanager
def _alone(lock: Path, folder: Path) -> Iterator[None]:
    """Whoever else came would end the database with itself. The lock goes with its process, however that ends."""
    with os.fdopen(os.open(lock, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"`terrace up --postgres` runs on {folder} already. Its address for other processes is in "
                f"{folder / 'url'}, as in TERRACE_STORAGE__URL=$(cat {folder / 'url'}) terrace serve --port 8001",
                code="running_already",
            ) from error
        yield


@contextmanager
def _tended(server: "PrivateServer") -> Iterator[None]:
    """It is started again when it dies, as the server goes on by itself as soon as its database is back."""
    over = threading.Event()

    def tend() -> None:
        told = False
        while not over.wait(LOOK_SECONDS):
            try:
                if server.revive():
                    note("PostgreSQL had ended by itself, and runs again.")
                told = False
            except Unavailable as error:
                if not told:
                    note(f"PostgreSQL has ended by itself and is started again and again. {error.message}")
                told = True

    tending = threading.Thread(target=tend, name="tend PostgreSQL", daemon=True)
    tending.start()
    try:
        yield
    finally:
        over.set()
        tending.join()


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
