"""`terrace key`: API keys. A secret is shown once, alone on standard output."""

from typing import Annotated, Any

import typer

from terrace.cli import values
from terrace.cli.asking import Yes, confirm
from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.naming import key_id
from terrace.cli.output import JSONFlag, emit, note, say, secret_out, table

Key = Annotated[str, typer.Argument(metavar="KEY", help="Name or id.")]

key = typer.Typer(help="API keys: list, create, rotate, revoke.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(key, name="key")


@key.command("list")
def list_keys(
    everybodys: Annotated[bool, typer.Option("--all", help="Everybody's of the tenant.")] = False,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """The keys there are, without their secrets."""
    with connect(server, tenant) as client:
        keys = list(client.items("/api/keys", all="true" if everybodys else None))
    if json:
        emit(keys)
    elif not keys:
        say("There are no keys; `terrace key create NAME` makes one.")
    else:
        table(("id", "name", "ends with", "may", "last used", "until"), (_row(each) for each in keys))


def _row(key: dict[str, Any]) -> tuple[Any, ...]:
    until = "revoked" if key["revoked_at"] else (key["expires_at"] or "")[:10]
    may = ", ".join(key["scopes"]) or "all its owner may"
    return key["id"], key["name"], f"…{key['hint']}", may, (key["last_used_at"] or "never")[:10], until


@key.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[list[str] | None, typer.Option("--scope", help="It may do this only, such as chat.")] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="Only these models, such as openai/*.")] = None,
    address: Annotated[list[str] | None, typer.Option("--address", help="Only from this address or network.")] = None,
    expires: Annotated[str | None, typer.Option("--expires", help="30d, 12h, or a date.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME=VALUE", help="A limit of its own.", autocompletion=values.complete_limit),
    ] = None,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Make a key and print its secret, once: alone on standard output, so that it can be piped."""
    limits = values.limits(limit or [])
    body: dict[str, Any] = {
        "name": name, "scopes": scope or [], "models": model or [], "addresses": address or [],
    }  # fmt: skip
    if expires:
        body["expires_at"] = values.moment(expires)
    with connect(server, tenant) as client:
        made = client.post("/api/keys", body)
        if limits:
            _limited(client, made["key"]["id"], limits)
    _print(made, json=json, what=f"The key {name} ({made['key']['id']}). It is shown only now:")


def _limited(client: Client, key: str, limits: dict[str, float | None]) -> None:
    """A key that was to be limited is never left without its limits."""
    try:
        client.send("PUT", path("limits", f"key:{key}"), limits)
    except BaseException:
        client.send("DELETE", path("keys", key))
        raise


def _print(made: dict[str, Any], *, json: bool, what: str) -> None:
    if json:
        emit(made)
        return
    note(what)
    secret_out(made["secret"])


@key.command()
def rotate(
    name: Key,
    overlap: Annotated[str | None, typer.Option("--overlap", help="How long the old secret works on: 15m, 1d.")] = None,
    yes: Yes = False,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Give a key a new secret, and print it once; what the key may do stays."""
    seconds = values.seconds(overlap) if overlap else 0.0
    with connect(server, tenant) as client:
        found = key_id(client, name)
        if not seconds:
            confirm(f"The old secret of {name} would end at once; --overlap 1h lets it work on.", yes=yes)
        made = client.post(path("keys", found, "rotate"), {"overlap": seconds})
    _print(made, json=json, what=f"The new secret of {name}. It is shown only now:")


@key.command()
def revoke(name: Key, yes: Yes = False, server: Server = None, tenant: Tenant = None) -> None:
    """End a key for good."""
    with connect(server, tenant) as client:
        found = key_id(client, name)
        confirm(f"Whatever uses the key {name} would be refused from now on.", yes=yes)
        client.send("DELETE", path("keys", found))
    say(f"The key {name} is revoked.")
