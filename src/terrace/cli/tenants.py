"""`terrace tenant`: for operators, all tenants; for owners, their own."""

from typing import Annotated, Any

import typer

from terrace.cli import values
from terrace.cli.asking import Yes, confirm
from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, connect
from terrace.cli.exporting import export_to
from terrace.cli.limits import Changes
from terrace.cli.limits import show as show_limits
from terrace.cli.naming import tenant_id
from terrace.cli.output import JSONFlag, complain, details, emit, errors, say, table
from terrace.errors import Conflict, Invalid

Named = Annotated[str, typer.Argument(metavar="TENANT", help="Name or id.")]
Own = Annotated[str | None, typer.Argument(metavar="[TENANT]", help="Name or id; your own when left out.")]
Models = Annotated[list[str] | None, typer.Option("--model", help="Only these models, such as openai/*.")]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME=VALUE", help="A limit from the start.", autocompletion=values.complete_limit),
]

MOST = 10_000  # tenants made by one command

tenant = typer.Typer(help="Tenants: list, create, change, limit, export, delete.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(tenant, name="tenant")


@tenant.command("list")
def list_tenants(
    search: Annotated[str | None, typer.Option("--search", "-q", help="Part of the name.")] = None,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """All tenants, with what they used."""
    with connect(server) as client:
        tenants = list(client.items("/api/tenants", q=search))
    if json:
        emit(tenants)
    elif not tenants:
        say("There are no such tenants.")
    else:
        columns = ("id", "name", "members", "today", "this month", "")
        table(columns, (_row(each) for each in tenants))


def _row(tenant: dict[str, Any]) -> tuple[Any, ...]:
    usage = tenant.get("usage") or {}
    spent = (_spent(usage.get(span)) for span in ("today", "month"))
    return tenant["id"], tenant["name"], tenant["members"], *spent, "disabled" if tenant["disabled"] else ""


def _spent(usage: dict[str, Any] | None) -> str:
    if not usage:
        return ""
    unknown = " + unpriced" if usage.get("unpriced") else ""
    return f"${usage.get('cost') or 0:,.2f}{unknown}"


@tenant.command()
def create(
    name: Annotated[str | None, typer.Argument(help="Its name.")] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, max=MOST, help="Make this many.")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Their names: PREFIX-001 and so on.")] = None,
    model: Models = None,
    limit: LimitOption = None,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """Make a tenant, or many at once."""
    if (name is None) == (count is None) or (count is None) != (prefix is None):
        raise Invalid("Give a name, or --count N with --prefix NAME.")
    body = {"models": model or [], "limits": values.limits(limit or [])}
    names = [name] if name else [f"{prefix}-{number:0{len(str(count))}}" for number in range(1, (count or 0) + 1)]
    made: list[dict[str, Any]] = []
    try:
        with connect(server) as client:
            _make(client, names, body, made)
    finally:  # what was made is told, whatever stopped the rest
        if json:
            emit(made if count else made[0] if made else None)
        elif made:
            table(("id", "name"), ((each["id"], each["name"]) for each in made))
        if len(made) < len(names) and made:
            complain(f"{len(made):,} of {len(names):,} were made.")


def _make(client: Client, names: list[str], body: dict[str, Any], made: list[dict[str, Any]]) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("Tenants"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=errors, disable=len(names) == 1 or not errors.is_terminal, transient=True) as bars:
        for name in bars.track(names):
            try:
                made.append(client.post("/api/tenants", {"name": name, **body}))
            except Conflict as error:
                raise Conflict(f"{name}: {error.message}", code=error.code) from error


@tenant.command()
def show(which: Own = None, json: JSONFlag = False, server: Server = None) -> None:
    """Everything about one tenant."""
    with connect(server) as client:
        found = client.get(_path(client, which))
    if json:
        emit(found)
        return
    limits, usage = found.pop("limits", []), found.pop("usage", None) or {}
    details({**found, **{span: _spent(each) for span, each in usage.items() if isinstance(each, dict)}})
    if limits:
        show_limits([{"subject": "tenant", "limits": limits}])


def _path(client: Client, which: str | None, *rest: str) -> str:
    return path("tenants", tenant_id(client, which), *rest) if which else path("tenant", *rest)


@tenant.command()
def change(
    which: Named,
    name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    model: Models = None,
    every_model: Annotated[bool, typer.Option("--every-model", help="No rule about models any more.")] = False,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """Rename a tenant, or say which models it may use."""
    body: dict[str, Any] = {"name": name} if name else {}
    if model or every_model:
        body["models"] = [] if every_model else model
    if not body:
        raise Invalid("Say what to change: --name, --model or --every-model.")
    _changed(which, body, "is changed", json=json, server=server)


@tenant.command()
def disable(which: Named, json: JSONFlag = False, server: Server = None) -> None:
    """Refuse everything of a tenant; nothing is deleted."""
    _changed(which, {"disabled": True}, "is disabled", json=json, server=server)


@tenant.command()
def enable(which: Named, json: JSONFlag = False, server: Server = None) -> None:
    """Let a disabled tenant in again."""
    _changed(which, {"disabled": False}, "is enabled", json=json, server=server)


def _changed(which: str, body: dict[str, Any], told: str, *, json: bool, server: str | None) -> None:
    with connect(server) as client:
        changed = client.send("PATCH", _path(client, which), body)
    if json:
        emit(changed)
    else:
        say(f"{changed['name']} {told}.")


@tenant.command()
def limits(which: Named, changes: Changes = None, json: JSONFlag = False, server: Server = None) -> None:
    """Show a tenant's limits, or set some: money_per_month=20 documents=none."""
    wanted = values.limits(changes or [])
    with connect(server) as client:
        at = _path(client, which)
        shown = client.send("PUT", f"{at}/limits", wanted) if wanted else client.get(at)
    if json:
        emit(shown["limits"])
    else:
        show_limits([{"subject": which, "limits": shown["limits"]}])


@tenant.command()
def delete(which: Named, yes: Yes = False, server: Server = None) -> None:
    """Delete a tenant with its documents, conversations and keys."""
    with connect(server) as client:
        found = client.get(_path(client, which))
        confirm(f"{found['name']} ({found['id']}) and everything in it would be deleted.", yes=yes)
        client.send("DELETE", path("tenants", found["id"]))
    say(f"{found['name']} is deleted.")


@tenant.command()
def export(
    which: Own = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The zip to write; - is standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    server: Server = None,
) -> None:
    """Everything of a tenant, as a zip."""
    with connect(server) as client:
        found = client.get(_path(client, which))
        at = path("tenants", found["id"], "export") if which else path("tenant", "export")
        export_to(client, at, output, found["name"], force=force)
