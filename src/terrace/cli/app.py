"""The commands, and how a failure ends: a sentence on standard error and an exit code by kind of error."""

import os
import sys
from functools import cache
from typing import Annotated, Any

import typer

from terrace import __version__
from terrace.cli import (
    analyze,
    ask,
    backup,
    campaign,
    config,
    contacts,
    doctor,
    documents,
    importing,
    jobs,
    keys,
    limits,
    login,
    models,
    move,
    schedules,
    serve,
    sources,
    tenants,
    up,
    usage,
    users,
    webhooks,
)
from terrace.cli.limits import lasting
from terrace.cli.output import complain
from terrace.errors import Kind, TerraceError

EXIT: dict[Kind, int] = {
    "internal": 1,
    "invalid": 2,
    "unauthenticated": 3,
    "denied": 3,
    "missing": 4,
    "conflict": 5,
    "limited": 6,
    "unavailable": 7,
}

app = typer.Typer(
    name="terrace",
    help="Ask your documents. A self-hosted AI backend; `terrace serve` starts it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for room in (
    serve,
    up,
    ask,
    documents,
    analyze,
    sources,
    jobs,
    schedules,
    webhooks,
    contacts,
    campaign,
    login,
    users,
    keys,
    tenants,
    usage,
    limits,
    importing,
    doctor,
    move,
    backup,
    models,
    config,
):
    room.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"terrace {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


@cache
def command() -> Any:
    """All of them: to put them together takes longer than most of them run."""
    return typer.main.get_command(app)


def run() -> None:
    try:
        command()()
    except TerraceError as error:
        complain(_sentence(error))
        sys.exit(EXIT[error.kind])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        pass  # whoever read it (`| head`) has enough
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(EXIT["unavailable"])
    finally:
        _flush()


def _sentence(error: TerraceError) -> str:
    """What it says, and when there is room again where the server knows and has not said so."""
    if error.kind == "limited" and error.retry_after and "again" not in error.message:
        return f"{error.message} There is room in {lasting(error.retry_after)}."
    return error.message


def _flush() -> None:
    """What is left, unless whoever read it (`| head`) has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
