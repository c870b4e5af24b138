"""What only a person can say: passwords, and that something which can't be undone is meant."""

import sys
from typing import Annotated

import typer

from terrace.cli.output import complain
from terrace.errors import Invalid

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask whether it is meant.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]

LONGEST = 4096  # characters of a line that is read as a secret


def line(prompt: str) -> str:
    """Something that is no secret."""
    if not sys.stdin.isatty():
        raise Invalid(f"{prompt} is missing, and there is no terminal to ask at.")
    return str(typer.prompt(prompt, err=True)).strip()


def secret(prompt: str, *, stdin: bool, again: bool = False) -> str:
    """Never echoed, never an argument. `stdin` takes the next line of standard input instead of asking."""
    if stdin:
        given = sys.stdin.readline(LONGEST + 1).rstrip("\r\n")
        if not given or len(given) > LONGEST:
            raise Invalid(f"{prompt}: standard input should hold it as one line.")
        return given
    if not sys.stdin.isatty():
        raise Invalid(f"{prompt}: there is no terminal to ask at; give it by --password-stdin.")
    import getpass

    given = getpass.getpass(f"{prompt}: ")
    if again and getpass.getpass(f"{prompt} (again): ") != given:
        raise Invalid("The two are not the same; nothing was changed.")
    return given


def confirm(what: str, *, yes: bool) -> None:
    """`what` says what would happen, as a sentence. Ends the command when it is not meant."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Invalid(f"{what} That can't be undone: say --yes when it is meant.")
    if not typer.confirm(f"{what} That can't be undone. Go on?", err=True):
        complain("Nothing was changed.")
        raise typer.Exit(1)
