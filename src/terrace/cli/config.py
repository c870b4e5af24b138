"""`terrace config show|check` and `terrace openapi`."""

import os
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from terrace.cli.output import complain, emit, say
from terrace.settings import Settings

# Read by the command line itself.
NOT_SETTINGS = {
    "TERRACE_SERVER", "TERRACE_API_KEY", "TERRACE_TENANT", "TERRACE_IMPORT_MONGO", "TERRACE_IMPORT_QDRANT",
}  # fmt: skip

config = typer.Typer(help="The settings in force.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(config, name="config")
    app.command()(openapi)


@config.command()
def show() -> None:
    """As JSON, with defaults; secrets are hidden."""
    emit(_hidden(Settings.load().model_dump(mode="json")))


def _hidden(value: Any) -> Any:
    """Without passwords and keys inside of URLs, which no type tells apart."""
    from terrace.telemetry.logs import redact

    match value:
        case dict():
            return {name: _hidden(each) for name, each in value.items()}
        case list():
            return [_hidden(each) for each in value]
        case str():
            return redact(value)
    return value


@config.command()
def check() -> None:
    """Whether they can be used; ends with 2 when not. Warns of names that mean nothing."""
    from terrace import assembly

    settings = Settings.load()
    assembly.check(settings)
    complain_of_unknown()
    say(f"The settings are fine. Data: {settings.data}; address: {settings.host}:{settings.port}")


def complain_of_unknown() -> None:
    """A wrong name is no error, as another version may know it; but nobody should start beside what they meant."""
    for name, meant in _unknown():
        complain(f"{name} is not a setting and changes nothing." + (f" Is {meant} meant?" if meant else ""))


def _unknown() -> Iterator[tuple[str, str]]:
    """What is set but is no setting, with the nearest that is. (A wrong name within a section is an error already.)"""
    known = {f"TERRACE_{name.upper()}": name for name in Settings.model_fields}
    given = [(name, name) for name in os.environ if name.upper().startswith("TERRACE_")]
    file = Path("terrace.toml")
    if file.is_file():
        given += [(f"TERRACE_{name}", f"{name} in terrace.toml") for name in tomllib.loads(file.read_text())]
    for name, shown in given:
        first = name.upper().removeprefix("TERRACE_").partition("__")[0]
        if f"TERRACE_{first}" not in known and name not in NOT_SETTINGS:
            near = get_close_matches(f"TERRACE_{first}", known, 1)
            yield shown, (near[0] if near and name == shown else known[near[0]] if near else "")


def openapi() -> None:
    """The API's OpenAPI document, as JSON."""
    from terrace import assembly

    emit(assembly.openapi())
