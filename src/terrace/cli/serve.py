"""`terrace serve` and `terrace worker`."""

import asyncio
import os
import socket
import sys
from collections.abc import Coroutine
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from terrace.cli.config import complain_of_unknown
from terrace.cli.output import say
from terrace.errors import Invalid
from terrace.settings import Settings

EVERY_ADDRESS = ("0.0.0.0", "::", "[::]")
SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # addresses that belong to nobody

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Role = Annotated[
    str | None,
    typer.Option(help="What this process does of it all: all, api, worker, scheduler or inference (docs/roles.md)."),
]
WorkerPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Tell at this port how it does: /health, /ready, /metrics. Else at none."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Beyond loopback, ask nobody who they are before the first account.")
]
Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser, where there is a desktop.")]

Engine = Annotated[
    str | None, typer.Option(help="What brings it jobs: local (the database itself) or celery (a broker).")
]


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(worker)


def serve(
    host: Host = None, port: Port = None, role: Role = None, insecure: Insecure = False, open: Open = False
) -> None:
    """Start the server: the page, the API and the workers, in one process; or what `--role` names of it."""
    given = {"host": host, "port": port, "role": role, "insecure": insecure or None}
    start(Settings.load(**{name: value for name, value in given.items() if value is not None}), open=open)


def start(settings: Settings, *, open: bool) -> None:
    """Serve until a signal comes, and tell people where."""
    from terrace import assembly

    if settings.role not in ("all", "api"):
        assembly.check(settings)
        _serve_part(settings)
        return
    elsewhere = ""

    def started(url: str) -> None:
        nonlocal elsewhere
        elsewhere = _elsewhere(settings, url)
        say(f"Terrace is ready at {url}  (Ctrl-C stops it; data in {settings.data})")
        if elsewhere != url:
            say(f"From other machines: {elsewhere}")
        if settings.insecure:
            say("--insecure: until there is an account, whoever reaches this address can do everything.", "yellow")
        sys.stdout.flush()
        if open and _desktop():
            typer.launch(url)

    def ownerless(code: str) -> None:
        say(
            f"Nobody has an account yet. Open {elsewhere}/setup and give the code {code}, or on this machine: "
            "terrace user add --owner",
            "yellow",
        )
        sys.stdout.flush()

    assembly.check(settings)
    _run(settings, assembly.serve(settings, started=started, ownerless=ownerless))


def _serve_part(settings: Settings) -> None:
    """A role without a page."""
    from terrace import assembly

    def started(url: str) -> None:
        say(f"Terrace's {settings.role} is ready at {url}  (Ctrl-C stops it)")
        sys.stdout.flush()

    _run(settings, assembly.serve(settings, started=started))


def _elsewhere(settings: Settings, url: str) -> str:
    """The address for people on other machines; `url` where there is no other."""
    if settings.web.public_url:
        return settings.web.public_url.rstrip("/")
    if settings.host not in EVERY_ADDRESS:
        return url
    family = socket.AF_INET if settings.host == "0.0.0.0" else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect((SOMEWHERE[family], 9))  # sends nothing: asks by which of our addresses one leaves
            ours = str(way.getsockname()[0])
    except OSError:  # no network beyond this machine, or not yet
        return url
    return f"http://{f'[{ours}]' if ':' in ours else ours}:{urlsplit(url).port}"


def _desktop() -> bool:
    """Somebody sits in front of a screen that can show a browser; over SSH or in a service nobody does."""
    graphical = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return graphical and sys.stdout.isatty() and "SSH_CONNECTION" not in os.environ


def worker(host: Host = None, port: WorkerPort = None, engine: Engine = None) -> None:
    """Run jobs in a process of its own, on the same data as a server."""
    from terrace import assembly

    given: dict[str, Any] = {"host": host, "jobs": {"engine": engine} if engine else None}
    settings = Settings.load(role="worker", **{name: value for name, value in given.items() if value is not None})
    if settings.jobs.engine == "celery" and port is not None:
        raise Invalid(
            "A worker of Celery has no door: leave out --port, and ask Flower or "
            "`celery -A terrace.jobs.engines.celery.app inspect ping`."
        )
    assembly.check(settings)
    if settings.jobs.engine == "celery":
        _carry(settings)
        return
    if port is not None:
        _serve_part(settings.model_copy(update={"port": port}))
        return
    say(f"Working on the jobs in {settings.data} (Ctrl-C stops)")
    sys.stdout.flush()
    _run(settings, assembly.work(settings))


def _carry(settings: Settings) -> None:
    from terrace.assembly.celery import carried

    say(f"Celery's workers run the jobs of {settings.redis.prefix} (Ctrl-C stops)")
    sys.stdout.flush()
    _run(settings, carried(settings))


def _run(settings: Settings, work: Coroutine[Any, Any, None]) -> None:
    """On uvloop's event loop where there is one: a third less CPU a request."""
    from terrace.telemetry.logs import configure

    complain_of_unknown()
    configure(settings.logs)
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)
