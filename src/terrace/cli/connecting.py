"""Which server a command talks to: the one named, the one that runs on our data, or a private one for the moment."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from terrace.cli.client import Client
from terrace.errors import TerraceError
from terrace.settings import Settings

Server = Annotated[str | None, typer.Option("--server", envvar="TERRACE_SERVER", help="Address of a running Terrace.")]


@contextmanager
def connect(server: str | None, *, working: bool = False) -> Iterator[Client]:
    """A client of `server`, else of the server running on our data folder, else of one of our own.

    One of our own runs jobs only where the command needs some: to look at the queue must not start it.
    """
    if server:
        yield Client(server)
        return
    settings = Settings.load()
    running = _running(settings)
    if running:
        yield running
        return
    with _private(settings, working=working) as url:
        yield Client(url)


def _running(settings: Settings) -> Client | None:
    """The server that left its address in our data folder, if it is still the one that answers there."""
    try:
        client = Client(str(json.loads((settings.data / "server.json").read_text())["url"]))
        same = client.get("/api/status")["data"] == str(settings.data)
    except (OSError, ValueError, KeyError, TypeError, TerraceError):
        return None
    return client if same else None


@contextmanager
def _private(settings: Settings, *, working: bool) -> Iterator[str]:
    """A server on a free loopback port in a thread of ours; drained when the command is done."""
    from terrace import assembly  # late: it takes a second, and most commands can do without

    logging.basicConfig(level=logging.ERROR, format="terrace: %(message)s")
    jobs = settings.jobs.model_copy(update={"workers": working, "drain": 1.0})
    web = settings.web.model_copy(update={"shutdown_grace": 2.0})
    settings = settings.model_copy(update={"host": "127.0.0.1", "port": 0, "jobs": jobs, "web": web})
    address: list[str] = []
    failure: list[BaseException] = []
    up = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def started(url: str) -> None:
        address.append(url)
        up.set()

    def run() -> None:
        try:
            loop.run_until_complete(assembly.serve(settings, started=started, stop=stop, announced=False))
        except BaseException as error:
            failure.append(error)
        finally:
            up.set()

    thread = threading.Thread(target=run, name="terrace", daemon=True)
    thread.start()
    try:
        up.wait()
        if failure:
            raise failure[0]
        yield address[0]
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        if not thread.is_alive():
            loop.close()
