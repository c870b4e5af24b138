"""`terrace schedule`: what goes on by itself, when, and how it went."""

from typing import Annotated, Any

import typer

from terrace.cli import values
from terrace.cli.asking import Yes, confirm
from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.output import JSONFlag, emit, say, table
from terrace.errors import Invalid, Missing

Which = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Name or id.")]

schedule = typer.Typer(help="Schedules: list, add, run, pause, and how it went.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(schedule, name="schedule")


@schedule.command("list")
def list_schedules(json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """The schedules there are, and when each runs next."""
    with connect(server, tenant) as client:
        items = list(client.items("/api/schedules"))
    if json:
        emit(items)
    elif not items:
        say("There are no schedules; `terrace schedule add` makes one.")
    else:
        table(("id", "name", "does", "when", "next", "last"), (_row(each) for each in items))


def _row(each: dict[str, Any]) -> tuple[Any, ...]:
    following = _minute(each["next_at"]) if each["enabled"] else each["problem"] or "paused"
    last = each["last_run"]
    return (
        each["id"], each["name"], " ".join((each["action"], *each["payload"].values())), each["sentence"], following,
        f"{last['state']} {_minute(last['started_at'])}" if last else "never",
    )  # fmt: skip


def _minute(moment: str | None) -> str:
    return f"{moment[:10]} {moment[11:16]} UTC" if moment else ""


@schedule.command()
def add(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    action: Annotated[
        str, typer.Argument(help="What it does, such as index.health; unknown ones name those there are.")
    ],
    cron: Annotated[str | None, typer.Option(help="Such as '30 2 * * 1-5' or @daily.")] = None,
    every: Annotated[str | None, typer.Option(help="Such as 15m, 6h or 1d, instead.")] = None,
    timezone: Annotated[str, typer.Option(help="Whose clock cron goes by, such as Europe/Berlin.")] = "UTC",
    given: Annotated[
        list[str] | None, typer.Option("--with", metavar="NAME=VALUE", help="What it needs, such as source_id=src_...")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Don't begin yet.")] = False,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Make one, and say in words when it runs."""
    body: dict[str, Any] = {
        "name": name, "action": action, "timezone": timezone, "payload": _payload(given or []), "enabled": not paused,
    }  # fmt: skip
    body |= {"cron": cron} if cron is not None else {}
    body |= {"every": round(values.seconds(every))} if every is not None else {}
    with connect(server, tenant) as client:
        made = client.post("/api/schedules", body)
    _told(made, json)


def _payload(given: list[str]) -> dict[str, str]:
    payload = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Invalid(f"--with {each}: write NAME=VALUE.")
        payload[name] = value
    return payload


def _told(made: dict[str, Any], json: bool) -> None:
    if json:
        emit(made)
    else:
        following = f" Next: {_minute(made['next_at'])}." if made["enabled"] else " It is paused."
        say(f"{made['name']} ({made['id']}): {made['sentence']}{following}")


@schedule.command()
def remove(which: Which, yes: Yes = False, server: Server = None, tenant: Tenant = None) -> None:
    """Forget it and its history; a run under way goes on."""
    with connect(server, tenant) as client:
        found = _found(client, which)
        confirm(f"The schedule {which} would be gone with its history.", yes=yes)
        client.send("DELETE", path("schedules", found))
    say(f"The schedule {which} is gone.")


@schedule.command("run")
def run_now(which: Which, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Do it now, besides its times."""
    with connect(server, tenant) as client:
        run = client.post(path("schedules", _found(client, which), "run"))
    if json:
        emit(run)
    else:
        say(f"{which} runs: {run['job_id']}. `terrace jobs follow {run['job_id']}` shows how it goes.")


@schedule.command()
def log(
    which: Which,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="How many.")] = 20,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Its latest runs, and how each ended."""
    with connect(server, tenant) as client:
        runs = client.get(path("schedules", _found(client, which), "runs"), limit=limit)["items"]
    if json:
        emit(runs)
    elif not runs:
        say(f"{which} has not run yet.")
    else:
        rows = ((_minute(run["started_at"]), run["state"], run["job_id"], run["note"]) for run in runs)
        table(("at", "state", "job", "note"), rows)


@schedule.command()
def pause(which: Which, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Leave out its times until it is resumed."""
    _switch(which, False, json, server, tenant)


@schedule.command()
def resume(which: Which, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Go on from its next time; what was left out is not made up for."""
    _switch(which, True, json, server, tenant)


def _switch(which: str, enabled: bool, json: bool, server: str | None, tenant: str | None) -> None:
    with connect(server, tenant) as client:
        changed = client.send("PATCH", path("schedules", _found(client, which)), {"enabled": enabled})
    _told(changed, json)


def _found(client: Client, given: str) -> str:
    """By id or name."""
    if given.startswith("sch_"):
        return given
    for each in client.items("/api/schedules"):
        if each["name"].casefold() == given.casefold():
            return str(each["id"])
    raise Missing(f"No schedule is named {given}; `terrace schedule list` shows which there are.")
