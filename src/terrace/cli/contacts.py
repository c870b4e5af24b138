"""`terrace contacts`: brought in from files, listed."""

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.output import JSONFlag, complain, count, emit, errors, note, say, table
from terrace.errors import BY_KIND, Conflict, Internal, Invalid

SHOWN = 20  # problems told one by one
COUNTS = ("new", "changed", "unchanged", "repeated", "invalid")

contacts = typer.Typer(help="Contacts: import, list, and what is known of them.", no_args_is_help=True)
InList = Annotated[str | None, typer.Option("--list", "-l", help="A list's name or id; all contacts without it.")]


def register(app: typer.Typer) -> None:
    app.add_typer(contacts, name="contacts")


@contacts.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A CSV file or an Excel workbook.")],
    list_name: Annotated[str, typer.Option("--list", "-l", help="The list they go into; made when missing.")] = "",
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COLUMN=FIELD", help="Which column is which field; nothing leaves it out."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and write nothing.")] = False,
    encoding: Annotated[str, typer.Option(help="Of a CSV file; found out without it.")] = "",
    delimiter: Annotated[
        str, typer.Option(help="Of a CSV file: comma, semicolon, tab ...; found out without it.")
    ] = "",
    sheet: Annotated[str, typer.Option(help="Of a workbook; the first without it.")] = "",
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Bring contacts in, or update those that are there; ends with 2 when some rows could not be taken."""
    if not (list_name or dry_run):
        raise Invalid("Name the list they go into: --list NAME.", code="list_wanted")
    options = {"encoding": encoding, "delimiter": delimiter, "sheet": sheet}
    with connect(server, tenant, working=not dry_run) as client:
        told = bring(client, file, list_name, map_ or (), dry_run=dry_run, quiet=json, **options)
    if json:
        emit(told)
    else:
        _report(told, dry_run=dry_run)
    if told["invalid"]:
        raise typer.Exit(2)


def bring(
    client: Client,
    file: Path,
    list_name: str,
    mapping: Sequence[str] = (),
    *,
    dry_run: bool = False,
    quiet: bool = False,
    **options: str,
) -> dict[str, Any]:
    """What came of it, or would. `mapping`: `column=field` each. Raises what the job failed with."""
    fields = {"list": list_name, "mapping": dumps(_mapping(mapping)), "dry_run": str(dry_run).lower(), **options}
    sent = client.send_file("/api/contacts/import", file, {name: value for name, value in fields.items() if value})
    if dry_run:
        examined: dict[str, Any] = sent["examined"]
        return examined
    job_id = sent["job_id"]
    try:
        _follow(client, job_id, quiet=quiet)
    except KeyboardInterrupt:
        complain("Stopped watching. The import goes on while a server or a worker runs.")
        raise
    return _ended(client.get(path("jobs", job_id)))


def _mapping(given: Sequence[str]) -> dict[str, str]:
    mapping = {}
    for each in given:
        column, sign, field = each.rpartition("=")
        if not sign or not column.strip():
            raise Invalid(f"--map says COLUMN=FIELD, such as --map 'Town=city'; {each!r} does not.", code="bad_mapping")
        mapping[column.strip()] = field.strip()
    return mapping


def _follow(client: Client, job_id: str, *, quiet: bool) -> None:
    """A bar on a terminal until it is over."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description:36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=errors, disable=quiet or not errors.is_terminal) as bars:
        bar = bars.add_task("Waiting", total=None)
        for kind, data in client.events(path("jobs", job_id, "events")):
            if kind == "progress":
                bars.update(bar, description=data["note"], completed=int(data["done"]), total=int(data["total"]))


def _ended(job: dict[str, Any]) -> dict[str, Any]:
    if job["state"] == "succeeded":
        result: dict[str, Any] = job["result"]
        return result
    if job["state"] == "cancelled":
        raise Conflict("The import was stopped. Who was in by then stays.", code="cancelled")
    error = job["error"] or {"kind": "internal", "message": "The import failed without a reason.", "code": "internal"}
    raise BY_KIND.get(error["kind"], Internal)(error["message"], code=error["code"])


def _report(told: dict[str, Any], *, dry_run: bool) -> None:
    mapped = ", ".join(f"{column} -> {field or 'left out'}" for column, field in told["mapping"].items())
    say(f"columns: {mapped}")
    for line in told["notes"]:
        note(line)
    for problem in told["problems"][:SHOWN]:
        note(f"line {problem['line']}: {problem['message']}")
    if told["invalid"] > SHOWN:
        note(f"... and {count(told['invalid'] - SHOWN, 'row')} more that cannot be taken")
    counted = ", ".join(f"{told[name]:,} {name}" for name in COUNTS if told[name]) or "nobody"
    say(f"{count(told['rows'], 'row')}: {counted}{'; nothing was written' if dry_run else ''}")


@contacts.command("list")
def list_contacts(
    list_name: InList = None,
    q: Annotated[str, typer.Option("--search", "-s", help="Part of a key, name or e-mail address.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 50,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Contacts, newest first."""
    from itertools import islice

    with connect(server, tenant) as client:
        items = list(islice(client.items("/api/contacts", list=list_name, q=q), limit))
    if json:
        emit(items)
    elif not items:
        say("There are no contacts; `terrace contacts import FILE --list NAME` brings some in.")
    else:
        table(("key", "name", "email", "fields"), (_row(each) for each in items))


def _row(contact: dict[str, Any]) -> tuple[Any, ...]:
    fields = ", ".join(f"{name}: {value}" for name, value in contact["fields"].items())
    return contact["key"], contact["name"], contact["email"], fields if len(fields) <= 120 else fields[:119] + "…"


@contacts.command("lists")
def list_lists(json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """The lists there are."""
    with connect(server, tenant) as client:
        items = list(client.items("/api/contact-lists"))
    if json:
        emit(items)
    elif not items:
        say("There are no lists; `terrace contacts import FILE --list NAME` makes one.")
    else:
        table(("id", "name", "contacts"), ((each["id"], each["name"], f"{each['contacts']:,}") for each in items))


@contacts.command("fields")
def list_fields(list_name: InList = None, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """What a template may name, and how many contacts have it."""
    with connect(server, tenant) as client:
        told = client.get("/api/contacts/fields", list=list_name)
    if json:
        emit(told)
    else:
        rows = ((f"contact.{name}", f"{filled:,} of {told['contacts']:,}") for name, filled in told["fields"].items())
        table(("field", "filled"), rows)
