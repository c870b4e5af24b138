"""`terrace up`: the server, and on this machine the database it needs."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

from terrace.cli.output import say
from terrace.cli.serve import Host, Insecure, Open, Port, start
from terrace.errors import Invalid
from terrace.settings import Settings

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
    with _private(settings) as url:
        start(Settings.load(**given, storage={"url": url}), open=open)


@contextmanager
def _private(settings: Settings) -> Iterator[str]:
    from terrace.storage.postgresql.server import PrivateServer

    server = PrivateServer(settings.data / "postgres")
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    previous = signal.signal(signal.SIGTERM, _end)  # until the service listens to it, and after
    try:
        url = server.start()
        say(f"PostgreSQL runs in {server.folder}; its address for other commands is in the file url there.")
        sys.stdout.flush()
        yield url
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nobody interrupts the end
        server.stop()
        signal.signal(signal.SIGTERM, previous)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
