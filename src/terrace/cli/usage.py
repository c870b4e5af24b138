"""`terrace usage`: what was used and what it cost, and the prices that count."""

import sys
from typing import Annotated, Any, Literal

import typer

from terrace.cli import values
from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.naming import key_id, tenant_id, user_id
from terrace.cli.output import JSONFlag, count, emit, say, table
from terrace.cli.prices import prices
from terrace.errors import Invalid

By = Literal["day", "model", "user", "key"]
OfTenant = Annotated[
    str | None, typer.Option("--tenant", envvar="TERRACE_TENANT", help="Of this tenant; for operators.")
]
UserOption = Annotated[str | None, typer.Option("--user", help="Of this person: e-mail address, id, or me.")]
KeyOption = Annotated[str | None, typer.Option("--key", help="Of this key: name or id.")]

usage = typer.Typer(help="What was used and what it cost; prices.", invoke_without_command=True)
usage.add_typer(prices, name="prices")


def register(app: typer.Typer) -> None:
    app.add_typer(usage, name="usage")


@usage.callback()
def report(
    context: typer.Context,
    by: Annotated[By, typer.Option("--by", help="A line for each.")] = "day",
    start: Annotated[str | None, typer.Option("--from", help="First day: a date, or 30d.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last day.")] = None,
    user: UserOption = None,
    key: KeyOption = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json: JSONFlag = False,
    tenant: OfTenant = None,
    server: Server = None,
) -> None:
    """Calls, tokens and cost, by day, model, person or key; with a bar for each on a terminal."""
    context.obj = server
    if context.invoked_subcommand:
        return
    if csv and json:
        raise Invalid("Either --csv or --json.")
    if tenant and (user or key):
        raise Invalid("--user and --key look in your own tenant: leave --tenant (and TERRACE_TENANT) out.")
    query: dict[str, Any] = {"by": by, "from": start and values.day(start), "to": end and values.day(end)}
    with connect(server) as client:
        at = path("tenants", tenant_id(client, tenant), "usage") if tenant else "/api/usage"
        query |= _of(client, user, key)
        if csv:
            sys.stdout.write(client.text(at, **query, format="csv"))
            return
        found = client.get(at, **query)
    if json:
        emit(found)
    else:
        _show(found)


def _of(client: Client, user: str | None, key: str | None) -> dict[str, Any]:
    return {
        "user": user if user in (None, "me") else user_id(client, user),
        "key": key_id(client, key) if key else None,
    }


def _show(found: dict[str, Any]) -> None:
    rows, total = [row for row in found["rows"] if row["calls"]], found["total"]
    if not total["calls"]:
        say(f"Nothing was used from {found['from'][:10]} to {found['to'][:10]}.")
        return
    money = any(row["cost"] for row in rows)
    bars = [float(row["cost"] or 0) if money else float(row["input_tokens"] + row["output_tokens"]) for row in rows]
    columns = (found["by"], "calls", "failed", "tokens in", "cached", "tokens out", "cost")
    table(columns, [*map(_row, rows), _row({**total, "label": "all"})], [*bars, 0.0])
    if total["unpriced"]:
        say(
            f"The price of {count(total['unpriced'], 'call')} is not known, so the cost leaves that out. "
            "`terrace usage --by model` shows which models; `terrace usage prices set` sets their price."
        )


def _row(row: dict[str, Any]) -> tuple[Any, ...]:
    numbers = (f"{row[name]:,}" for name in ("calls", "failed", "input_tokens", "cached_tokens", "output_tokens"))
    return row.get("label") or row.get("group"), *numbers, cost(row["cost"], row["unpriced"], row["calls"])


def cost(dollars: float | None, unpriced: int, calls: int) -> str:
    """Unknown is said, never shown as nothing."""
    if unpriced and unpriced >= calls:
        return "unknown"
    return f"${dollars or 0:,.4f}" + (" + unknown" if unpriced else "")


@usage.command()
def calls(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="How many.")] = 20,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Of this model.")] = None,
    user: UserOption = None,
    key: KeyOption = None,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """The newest calls of models, one by one."""
    with connect(server or context.obj, tenant) as client:
        items = client.get("/api/usage/calls", limit=limit, model=model, **_of(client, user, key))["items"]
    if json:
        emit(items)
    elif not items:
        say("No model was called.")
    else:
        columns = ("when", "model", "outcome", "tokens in", "tokens out", "cost", "seconds", "id")
        table(columns, (_call(each) for each in items))


def _call(call: dict[str, Any]) -> tuple[Any, ...]:
    about = "~" if call["estimated"] else ""  # counted by us
    return (
        call["started_at"][:19].replace("T", " "),
        f"{call['provider']}/{call['model']}",
        call["outcome"] + (f": {call['code']}" if call["code"] else ""),
        f"{about}{call['input_tokens']:,}",
        f"{about}{call['output_tokens']:,}",
        "unknown" if call["cost"] is None else f"${call['cost']:,.6f}",
        f"{call['duration']:.1f}",
        call["id"],
    )
