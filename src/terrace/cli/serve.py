"""`terrace serve` and `terrace worker`."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from terrace.cli.output import console
from terrace.settings import Settings

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Listen beyond loopback although there is no login.")]
Open = Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")]


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(worker)


def settings_with(**given: Any) -> Settings:
    return Settings.load(**{name: value for name, value in given.items() if value is not None and value is not False})


def serve(host: Host = None, port: Port = None, insecure: Insecure = False, open: Open = False) -> None:
    """Start the server: the page, the API and the workers, in one process."""
    settings = settings_with(host=host, port=port, insecure=insecure)

    def started(url: str) -> None:
        console.print(f"Terrace is ready at [bold]{url}[/bold]  (Ctrl-C stops it; data in {settings.data})")
        if insecure or settings.insecure:
            console.print("[yellow]--insecure: anybody who reaches this address can read and change everything.[/]")
        sys.stdout.flush()
        if open:
            typer.launch(url)

    _run(settings, started)


def _run(settings: Settings, started: Any) -> None:
    from terrace import assembly
    from terrace.telemetry.logs import configure

    configure(settings.logs)
    _runner()(assembly.serve(settings, started=started))


def worker() -> None:
    """Run jobs in a process of its own, on the same data as a server."""
    from terrace import assembly
    from terrace.telemetry.logs import configure

    settings = Settings.load()
    configure(settings.logs)
    console.print(f"Working on the jobs in {settings.data} (Ctrl-C stops)")
    _runner()(assembly.work(settings))


def _runner() -> Any:
    """uvloop's event loop where there is one; a third less CPU a request."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run
