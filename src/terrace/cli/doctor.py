"""`terrace doctor`."""

from typing import Annotated

import typer

from terrace.cli.output import JSONFlag, emit, say, table
from terrace.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False, json: JSONFlag = False
) -> None:
    """Find what is stuck, orphaned or half-done; ends with 1 while something is left."""
    import asyncio

    from terrace import assembly

    settings = Settings.load()
    assembly.check(settings)
    findings = asyncio.run(assembly.doctor(settings, repair=repair))
    left = [each for each in findings if each["state"] != "repaired"]
    if json:
        emit(findings)
    elif not findings:
        say("All is well.")
    else:
        columns = ("room", "what", "about", "state")
        table(columns, ((each["room"], each["message"], each["subject"], each["state"]) for each in findings))
        if left and not repair:
            say("`terrace doctor --repair` mends what can be mended.")
    if left:
        raise typer.Exit(1)
