"""`terrace webhooks`: who is told of what, and how that went. A secret is shown once, alone on standard output."""

import time
from typing import Annotated, Any

import typer

from terrace.cli import values
from terrace.cli.asking import Yes, confirm
from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.output import JSONFlag, emit, note, say, secret_out, table, waiting
from terrace.errors import Conflict, Missing, Unavailable

Which = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id or URL.")]

WAIT_SECONDS = 60.0  # for the first attempt
LOOK_SECONDS = 0.2  # between two looks

webhooks = typer.Typer(help="Webhooks: list, add, test, and what became of deliveries.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(webhooks, name="webhooks")


@webhooks.command("list")
def list_webhooks(json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """The endpoints there are, and whether they work."""
    with connect(server, tenant) as client:
        items = list(client.items("/api/webhooks"))
    if json:
        emit(items)
    elif not items:
        say("There are no webhooks; `terrace webhooks add URL` makes one.")
    else:
        table(("id", "url", "is told of", "state", "description"), (_row(each) for each in items))


def _row(each: dict[str, Any]) -> tuple[Any, ...]:
    told = ", ".join(each["events"]) or "everything"
    return each["id"], each["url"], told, _state(each), each["description"]


def _state(each: dict[str, Any]) -> str:
    if not each["enabled"]:
        return each["disabled_reason"] or "off"
    return f"failing since {_minute(each['failing_since'])}" if each["failing_since"] else "on"


def _minute(moment: str | None) -> str:
    return f"{moment[:10]} {moment[11:16]} UTC" if moment else ""


@webhooks.command()
def add(
    url: Annotated[str, typer.Argument(help="Where events are sent.")],
    event: Annotated[
        list[str] | None, typer.Option("--event", help="Only these, such as job.failed or campaign.*; none: all.")
    ] = None,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Make one and print its secret, once: alone on standard output, so that it can be piped."""
    with connect(server, tenant) as client:
        made = client.post("/api/webhooks", {"url": url, "events": event or [], "description": description})
    _secret(made, json, f"The webhook {made['webhook']['id']}. Its secret is shown only now:")


def _secret(made: dict[str, Any], json: bool, what: str) -> None:
    if json:
        emit(made)
        return
    note(what)
    secret_out(made["secret"])


@webhooks.command()
def remove(which: Which, yes: Yes = False, server: Server = None, tenant: Tenant = None) -> None:
    """Forget it and its log."""
    with connect(server, tenant) as client:
        found = _found(client, which)
        confirm(f"The webhook {which} would be gone with its log, and what waits for it.", yes=yes)
        client.send("DELETE", path("webhooks", found))
    say(f"The webhook {which} is gone.")


@webhooks.command()
def enable(which: Which, server: Server = None, tenant: Tenant = None) -> None:
    """Switch it on; it gets what waited."""
    _switch(which, True, server, tenant)


@webhooks.command()
def disable(which: Which, server: Server = None, tenant: Tenant = None) -> None:
    """Switch it off: it is told of nothing new, and what waits goes on waiting."""
    _switch(which, False, server, tenant)


def _switch(which: str, enabled: bool, server: str | None, tenant: str | None) -> None:
    with connect(server, tenant) as client:
        client.send("PATCH", path("webhooks", _found(client, which)), {"enabled": enabled})
    say(f"The webhook {which} is {'on' if enabled else 'off'}.")


@webhooks.command()
def rotate(
    which: Which,
    overlap: Annotated[
        str | None, typer.Option("--overlap", help="How long the old secret signs too: 15m, 1d.")
    ] = None,
    yes: Yes = False,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Give it a new secret, and print it once."""
    seconds = values.seconds(overlap) if overlap else 0.0
    with connect(server, tenant) as client:
        found = _found(client, which)
        if not seconds:
            confirm(f"The old secret of {which} would end at once; --overlap 1h signs with both.", yes=yes)
        made = client.post(path("webhooks", found, "rotate"), {"overlap": seconds})
    _secret(made, json, f"The new secret of {which}. It is shown only now:")


@webhooks.command("test")
def send_test(which: Which, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Send it a webhook.test, and say what it answered."""
    with connect(server, tenant) as client:
        found = _found(client, which)
        sent = client.post(path("webhooks", found, "test"))
        told = _tried(client, found, sent)
    _tell(told, json)


@webhooks.command()
def log(
    which: Which,
    state: Annotated[str | None, typer.Option("--state", help="queued, delivered or dead.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="How many.")] = 20,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Its latest deliveries, and what became of them."""
    with connect(server, tenant) as client:
        items = client.get(path("webhooks", _found(client, which), "deliveries"), state=state, limit=limit)["items"]
    if json:
        emit(items)
    elif not items:
        say(f"Nothing was sent to {which} yet.")
    else:
        table(("id", "event", "at", "state", "tries", "status", "next", "error"), (_delivery(each) for each in items))


def _delivery(each: dict[str, Any]) -> tuple[Any, ...]:
    return (
        each["id"], each["type"], _minute(each["created_at"]), each["state"], each["attempts"], each["status"],
        _minute(each["next_at"]), each["error"],
    )  # fmt: skip


@webhooks.command()
def redeliver(
    which: Which,
    delivery: Annotated[str, typer.Argument(help="Id of a delivery; `terrace webhooks log` shows them.")],
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Send one again, and say what was answered."""
    with connect(server, tenant) as client:
        found = _found(client, which)
        sent = client.post(path("webhooks", found, "deliveries", delivery, "redeliver"))
        told = _tried(client, found, sent)
    _tell(told, json)


def _tried(client: Client, webhook: str, sent: dict[str, Any]) -> dict[str, Any]:
    """The delivery once it was tried (again)."""
    deadline = time.monotonic() + WAIT_SECONDS
    with waiting("Sending"):
        while time.monotonic() < deadline:
            each: dict[str, Any] = client.get(path("webhooks", webhook, "deliveries", sent["id"]))["delivery"]
            if each["attempts"] > sent["attempts"]:
                return each
            time.sleep(LOOK_SECONDS)
    raise Unavailable("It waits still: no worker took it up. `terrace webhooks log` shows what becomes of it.")


def _tell(each: dict[str, Any], json: bool) -> None:
    if json:
        emit(each)
    if each["state"] != "delivered":
        raise Unavailable(f"{each['type']} did not arrive. {each['error']}")
    if not json:
        say(f"{each['type']} arrived: {each['status']} after {each['duration']:.2f} s.")


def _found(client: Client, given: str) -> str:
    """By id or URL."""
    if given.startswith("whk_"):
        return given
    ids = [str(each["id"]) for each in client.items("/api/webhooks") if given in (each["url"], each["url"].rstrip("/"))]
    if not ids:
        raise Missing(f"No webhook goes to {given}; `terrace webhooks list` shows which there are.")
    if len(ids) > 1:
        raise Conflict(f"Several go there: say which by id: {', '.join(ids)}.", code="ambiguous")
    return ids[0]
