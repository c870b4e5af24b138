"""`terrace limits`: how much a tenant, a person or a key may use."""

from collections.abc import Iterable, Mapping
from math import ceil
from types import MappingProxyType
from typing import Annotated, Any

import typer

from terrace.cli import values
from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.naming import key_id, user_id
from terrace.cli.output import JSONFlag, emit, say, size, table
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
        names = {} if json else _names(client, shown)
    if json:
        emit(shown)
    else:
        show(shown, names)


def _subject(client: Client, given: str) -> str:
    kind, _, name = given.partition(":")
    if given == "tenant":
        return given
    if kind == "user" or given.startswith("usr_") or "@" in given:
        return f"user:{user_id(client, name or given)}"
    return f"key:{key_id(client, name or given)}"


def _names(client: Client, entries: Iterable[dict[str, Any]]) -> dict[str, str]:
    """What people call those whose limits these are, by id; of others only for those who may see them."""
    subjects = {entry["subject"].partition(":")[0] for entry in entries}
    if not subjects:
        return {}
    may = "members" in client.get("/api/auth/session")["permissions"]
    names: dict[str, str] = {}
    if may:
        names |= {each["user"]["id"]: each["user"]["email"] for each in client.items("/api/members")}
    if "key" in subjects:
        names |= {each["id"]: each["name"] for each in client.items("/api/keys", all="true" if may else None)}
    return names


def show(entries: Iterable[dict[str, Any]], names: Mapping[str, str] = MappingProxyType({})) -> None:
    """As a table; whoever has no name among `names` is shown by id."""
    rows = [(entry["subject"], limit) for entry in entries for limit in entry["limits"]]
    if not rows:
        say("There are no limits.")
        return
    columns = ("whose", "limit", "value", "used", "free again", "set by")
    table(columns, (_row(subject, limit, names) for subject, limit in rows))


def _row(subject: str, limit: dict[str, Any], names: Mapping[str, str]) -> tuple[Any, ...]:
    kind, colon, who = subject.partition(":")
    resets, name, by = limit["resets_in"], limit["name"], limit["set_by"]
    free = "" if resets is None or not limit["used"] else f"in {lasting(resets)}"
    figures = (_figure(name, limit[each]) for each in ("value", "used"))
    return f"{kind}{colon}{names.get(who, who)}", name, *figures, free, names.get(by, by)


def _figure(name: str, number: float) -> str:
    if name.startswith("money"):
        return f"${number:,.2f}" if round(number, 2) == number else f"${number:,.6f}".rstrip("0")
    return size(number) if name == "stored_bytes" else f"{number:,.0f}"


def lasting(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`, `12 days`."""
    for unit, length in (("days", 172_800), ("h", 7200), ("min", 120)):
        if seconds >= length:
            return f"{seconds / {'days': 86_400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{ceil(seconds)} s"
