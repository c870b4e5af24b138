"""`terrace limits`: how much a tenant, a person or a key may use."""

from collections.abc import Iterable
from math import ceil
from typing import Annotated, Any

import typer

from terrace.cli import values
from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.naming import key_id, user_id
from terrace.cli.output import JSONFlag, emit, say, table
from terrace.errors import Invalid

Changes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=VALUE]...", help="money_per_day=5, documents=none ...", autocompletion=values.complete_limit
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(limits)


def limits(
    subject: Annotated[
        str | None, typer.Argument(help="Whose: tenant, an e-mail address, or a key's name; ids as user:ID, key:ID.")
    ] = None,
    changes: Changes = None,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Show the limits with what is used of them, or change somebody's."""
    if subject and "=" in subject:
        raise Invalid(f"Say whose limit it is first: terrace limits tenant {subject}")
    wanted = values.limits(changes or [])
    with connect(server, tenant) as client:
        named = _subject(client, subject) if subject else ""
        if wanted:
            shown = [client.send("PUT", path("limits", named), wanted)]
        else:
            shown = client.get("/api/limits")["items"]
            shown = [each for each in shown if not named or each["subject"] == named]
    if json:
        emit(shown)
    else:
        show(shown)


def _subject(client: Client, given: str) -> str:
    kind, _, name = given.partition(":")
    if given == "tenant":
        return given
    if kind == "user" or given.startswith("usr_") or "@" in given:
        return f"user:{user_id(client, name or given)}"
    return f"key:{key_id(client, name or given)}"


def show(entries: Iterable[dict[str, Any]]) -> None:
    """As a table."""
    rows = [(entry["subject"], limit) for entry in entries for limit in entry["limits"]]
    if not rows:
        say("There are no limits.")
        return
    columns = ("whose", "limit", "value", "used", "free again", "set by")
    table(columns, (_row(subject, limit) for subject, limit in rows))


def _row(subject: str, limit: dict[str, Any]) -> tuple[Any, ...]:
    resets = limit["resets_in"]
    free = "" if resets is None or not limit["used"] else f"in {lasting(resets)}"
    return subject, limit["name"], _number(limit["value"]), _number(limit["used"]), free, limit["set_by"]


def _number(value: float) -> str:
    return f"{value:,}" if float(value).is_integer() else f"{value:,.6g}"


def lasting(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`, `12 days`."""
    for unit, length in (("days", 172_800), ("h", 7200), ("min", 120)):
        if seconds >= length:
            return f"{seconds / {'days': 86_400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{ceil(seconds)} s"
