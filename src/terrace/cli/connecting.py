"""Which server a command talks to: the one named, the one that runs on our data, or a private one for the moment."""

import asyncio
import json
import logging
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

import typer

from terrace.cli.client import Client, Credential
from terrace.cli.credentials import Key, Login, Terminal, choose
from terrace.cli.naming import tenant_id
from terrace.errors import Invalid, TerraceError, Unauthenticated
from terrace.settings import Settings

NEAR = ("127.0.0.1", "localhost", "::1")

Server = Annotated[str | None, typer.Option("--server", envvar="TERRACE_SERVER", help="Address of a running Terrace.")]
Tenant = Annotated[
    str | None, typer.Option("--tenant", envvar="TERRACE_TENANT", help="At the server's terminal: act in this tenant.")
]


@contextmanager
def connect(server: str | None, tenant: str | None = None, *, working: bool = False) -> Iterator[Client]:
    """A client of `server`, else of the server running on our data folder, else of one of our own.

    One of our own runs jobs only where the command needs some: to look at the queue must not start it.
    """
    if found := find(server):
        yield _client(*found, tenant)
        return
    with _private(Settings.load(), working=working) as (url, token):
        yield _client(url, token, tenant)


class Found(NamedTuple):
    url: str
    token: str | None  # of the terminal, where the server runs on our own data folder


def find(server: str | None) -> Found | None:
    """The server that is named, else the one that runs on our data folder; None when none does."""
    if not server:
        return _running(Settings.load().data)
    url = Client(server).url
    if _place(url)[0] not in NEAR:
        return Found(url, None)
    data = Settings.load().data
    ours = _announced(data)
    if ours is None or _place(ours.url) != _place(url):
        return Found(url, None)
    return _running(data) or Found(url, None)


def _place(url: str) -> tuple[str, int, str]:
    """Host, port and path; every name of this machine is the same."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return NEAR[0] if host in NEAR else host, parts.port or {"https": 443}.get(parts.scheme, 80), parts.path


def _client(url: str, token: str | None, tenant: str | None) -> Client:
    credential = choose(url, token)
    client = Client(url, credential)
    if not tenant:
        return client
    _check_tenant(url, credential, tenant)
    return Client(url, credential, tenant=tenant_id(client, tenant) if isinstance(credential, Terminal) else None)


def _check_tenant(url: str, credential: Credential, tenant: str) -> None:
    """Only at the terminal can one choose; who asks for another tenant must not get their own instead."""
    if isinstance(credential, Terminal):
        return
    if isinstance(credential, Login):
        credential.token()
        if tenant in credential.tenant.values():
            return
        name = credential.tenant.get("name")
        raise Invalid(f"You are logged in to {name}: run `terrace login --tenant '{tenant}'` to work in that tenant.")
    if isinstance(credential, Key):
        raise Invalid("An API key works in its own tenant alone: leave --tenant (and TERRACE_TENANT) out.")
    raise Unauthenticated(credential.advice(url))


def _announced(data: Path) -> Found | None:
    """What a server left in our data folder; one that listens everywhere is asked at loopback."""
    try:
        told = json.loads((data / "server.json").read_text())
        url = re.sub("//0.0.0.0(?=[:/]|$)", "//127.0.0.1", str(told["url"])).replace("//[::]", "//[::1]")
        return Found(Client(url).url, told.get("token"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, TerraceError):
        return None


def _running(data: Path) -> Found | None:
    """The server that left its address in our data folder, if it is still the one that answers there."""
    ours = _announced(data)
    if ours is None:
        return None
    try:
        same = Client(ours.url, Terminal(ours.token) if ours.token else None).get("/api/status")["data"] == str(data)
    except (KeyError, TypeError, TerraceError):
        return None
    return ours if same else None


@contextmanager
def _private(settings: Settings, *, working: bool) -> Iterator[tuple[str, str]]:
    """A server on a free loopback port in a thread of ours; drained when the command is done. Its terminal is us."""
    from terrace import assembly  # late: it takes a second, and most commands can do without

    logging.basicConfig(level=logging.ERROR, format="terrace: %(message)s")
    jobs = settings.jobs.model_copy(update={"workers": working, "drain": 1.0})
    lasting = settings.web.public_url or (f"http://localhost:{settings.port}" if settings.port else "")
    web = settings.web.model_copy(update={"shutdown_grace": 2.0, "public_url": lasting})  # in links that outlive it
    role = "all" if working else "api"
    settings = settings.model_copy(update={"host": "127.0.0.1", "port": 0, "role": role, "jobs": jobs, "web": web})
    token = f"trt_{secrets.token_urlsafe(32)}"
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
            serving = assembly.serve(settings, started=started, stop=stop, announced=False, token=token)
            loop.run_until_complete(serving)
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
        yield address[0], token
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        if not thread.is_alive():
            loop.close()
