"""`terrace config show|check` and `terrace openapi`."""

import typer

from terrace.cli.output import console, emit
from terrace.settings import Settings

config = typer.Typer(help="The settings in force.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(config, name="config")
    app.command()(openapi)


@config.command()
def show() -> None:
    """As JSON, with defaults; secrets are hidden."""
    emit(Settings.load().model_dump(mode="json"))


@config.command()
def check() -> None:
    """Whether they can be used; ends with 2 when not."""
    from terrace import assembly

    settings = Settings.load()
    assembly.check(settings)
    console.print(
        f"The settings are fine. Data: {settings.data}; address: {settings.host}:{settings.port}", markup=False
    )


def openapi() -> None:
    """The API's OpenAPI document, as JSON."""
    from terrace import assembly

    emit(assembly.openapi())
