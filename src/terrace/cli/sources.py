"""`terrace source`: folders, pages, sites and feeds that bring documents by themselves."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from terrace.cli import values
from terrace.cli.asking import Yes, confirm
from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.output import JSONFlag, count, emit, errors, say, table
from terrace.errors import Invalid, Missing

Kind = Literal["folder", "url", "site", "feed"]
Which = Annotated[str, typer.Argument(metavar="SOURCE", help="Name or id.")]
COUNTS = ("added", "changed", "unchanged", "removed", "failed", "skipped")

source = typer.Typer(help="Sources: list, add, run, remove, and what each brought.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(source, name="source")


@source.command("list")
def list_sources(json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """The sources there are, and how their last run went."""
    with connect(server, tenant) as client:
        items = list(client.items("/api/sources"))
    if json:
        emit(items)
    elif not items:
        say("There are no sources; `terrace source add` makes one.")
    else:
        table(("id", "name", "kind", "where", "documents", "last run"), (_row(each) for each in items))


def _row(each: dict[str, Any]) -> tuple[Any, ...]:
    when = "running" if each["running"] else (each["ran_at"] or "never")[:16].replace("T", " ")
    told = f"{when}: {_told(each['report'])}" if each["report"] else when
    return each["id"], each["name"], each["kind"], each["location"], each["documents"], told


def _told(report: dict[str, Any]) -> str:
    if report["error"]:
        return str(report["error"])
    return ", ".join(f"{report[name]:,} {name}" for name in COUNTS if report[name]) or "nothing there"


@source.command()
def add(
    location: Annotated[str, typer.Argument(help="A folder, or the address of a page, site, sitemap or feed.")],
    kind: Annotated[
        Kind | None, typer.Option("--kind", "-k", help="folder for a path; else url (the page alone), site or feed.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What it is called.")] = "",
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where its documents go.")] = "default",
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="Tags they get.")] = None,
    include: Annotated[list[str] | None, typer.Option("--include", help="Only these, such as '**/*.pdf'.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Not these.")] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Links followed from the first page.")] = None,
    pages: Annotated[int | None, typer.Option(min=1, help="Pages brought at most.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="A folder: bring changes within seconds.")] = False,
    every: Annotated[str | None, typer.Option(help="Run it every 15m, 6h or 1d.")] = None,
    cron: Annotated[str | None, typer.Option(help="Run it at such times as '30 2 * * *'.")] = None,
    timezone: Annotated[str, typer.Option(help="Whose clock cron goes by.")] = "UTC",
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Make a source. Nothing is fetched before it runs: `terrace source run`, its schedule, or --watch."""
    kind = kind or _kind(location)
    body = {
        "kind": kind, "location": str(Path(location).expanduser().absolute()) if kind == "folder" else location,
        "name": name, "collection": collection, "tags": tag or [], "include": include or [], "exclude": exclude or [],
        "depth": depth, "pages": pages, "watch": watch, "cron": cron, "timezone": timezone,
        "every": round(values.seconds(every)) if every else None,
    }  # fmt: skip
    with connect(server, tenant) as client:
        made = client.post("/api/sources", body)
    if json:
        emit(made)
    else:
        say(f"{made['id']} brings what is in {made['location']}; `terrace source run {made['id']}` looks now.")


def _kind(location: str) -> Kind:
    if "://" not in location:
        return "folder"
    raise Invalid(f"Say what it is: --kind url (the page alone), site or feed, for {location}.")


@source.command()
def run(
    name: Which,
    yes: Annotated[bool, typer.Option("--confirm", help="Take out more than half of a folder, if it is gone.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is done.")] = True,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Look at it now; ends with 2 when something of it failed."""
    with connect(server, tenant, working=wait) as client:
        found = _id(client, name)
        job_id = client.post(path("sources", found, "run"), {"confirm": yes})["job_id"]
        if wait:
            _follow(client, job_id)
        shown = client.get(path("sources", found))
    if json:
        emit(shown)
    elif not wait:
        say(f"{job_id} looks at it.")
    else:
        _report(shown["report"])
    if wait and (shown["report"]["failed"] or shown["report"]["error"]):
        raise typer.Exit(2)


def _follow(client: Client, job_id: str) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bars:
        bar = bars.add_task("", total=None)
        for kind, data in client.events(path("jobs", job_id, "events")):
            if kind == "progress":
                bars.update(bar, completed=data["done"], total=data["total"] or None, description=data.get("note", ""))


def _report(report: dict[str, Any]) -> None:
    say(_told(report))
    for note in report["notes"]:
        say(note)
    for each in report["failures"]:
        say(f"x {each['item']}: {each['reason']}")


@source.command()
def items(
    name: Which,
    outcome: Annotated[str | None, typer.Option(help="Only those added, changed, unchanged, failed ...")] = None,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Each file, page or entry, and what became of it."""
    with connect(server, tenant) as client:
        found = list(client.items(path("sources", _id(client, name), "items"), outcome=outcome))
    if json:
        emit(found)
    elif not found:
        say("It has brought nothing yet.")
    else:
        rows = ((each["key"], each["outcome"], each["document_id"], each["reason"]) for each in found)
        table(("what", "outcome", "document", "why"), rows)


@source.command()
def remove(
    name: Which,
    documents: Annotated[bool, typer.Option("--documents", help="And the documents it brought.")] = False,
    yes: Yes = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Remove a source and its schedule; its documents stay unless --documents is given."""
    with connect(server, tenant) as client:
        found = _id(client, name)
        shown = client.get(path("sources", found))
        if documents:
            confirm(f"{count(shown['documents'], 'document')} that {shown['name']} brought would go.", yes=yes)
        client.send("DELETE", path("sources", found) + ("?documents=true" if documents else ""))
    say(f"{shown['name']} is removed.")


def _id(client: Client, name: str) -> str:
    """By id or name. Raises Missing, Invalid when several have the name."""
    if name.startswith("src_"):
        return name
    found = [each["id"] for each in client.items("/api/sources") if each["name"] == name]
    if not found:
        raise Missing(f"There is no source called {name!r}; `terrace source list` shows them.")
    if len(found) > 1:
        raise Invalid(f"Several sources are called {name!r}: {', '.join(found)}. Give the id.")
    return str(found[0])
