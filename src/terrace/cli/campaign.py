"""`terrace campaign`: a message for each contact of a file, previewed, written, followed, exported."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.contacts import bring
from terrace.cli.output import JSONFlag, count, details, emit, errors, note, say, table
from terrace.errors import Conflict, Invalid, Missing

campaigns = typer.Typer(help="Campaigns: a message for each contact.", no_args_is_help=True)
CampaignId = Annotated[str, typer.Argument(help="Its id, as `terrace campaign list` shows it.")]
FRONT = ("name", "mode", "system", "knowledge_query", "collection", "model")
TEXT = ("body", "mode", "system", "knowledge_query")
LATE = ("budget", "concurrency")  # what can be changed once it has begun
OVER = ("finished", "paused", "cancelled", "failed")


def register(app: typer.Typer) -> None:
    app.add_typer(campaigns, name="campaign")


@campaigns.command()
def run(
    template: Annotated[Path, typer.Argument(help="A text file: the template, with `name: value` lines in `---`.")],
    contacts: Annotated[Path, typer.Argument(help="A CSV file or an Excel workbook.")],
    preview: Annotated[bool, typer.Option("--preview", help="Write five, say what all may cost, and stop.")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Ask no model for the preview.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")] = False,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Who writes.")] = None,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Where {{knowledge}} looks.")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="Dollars; writing pauses before it is exceeded.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, max=1000, help="Messages written at a time.")] = None,
    skip: Annotated[bool, typer.Option("--skip-incomplete", help="Skip contacts that lack a value.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the messages go: a .csv or .jsonl.")] = None,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Write a message for each contact. The same files again go on with the same campaign, be it with another budget:
    nobody gets a second message."""
    if not (preview or yes or sys.stdin.isatty()):
        raise Invalid("Nobody can be asked here: say --yes to start, or --preview to look first.", code="say_yes")
    told = read_template(template)
    wanted = {
        "model": model or told.get("model"), "collection": collection or told.get("collection"), "budget": budget,
        "concurrency": concurrency, "options": {"incomplete": "skip"} if skip else {},
    }  # fmt: skip
    with connect(server, tenant, working=True) as client:
        campaign = _made(client, template, contacts, told, wanted, quiet=json)
        if campaign["state"] == "cancelled":
            raise Conflict(
                f"{campaign['id']}, the campaign of these files, was cancelled. To write to all of them anew, change "
                "the template or the contacts: other files are another campaign.",
                code="campaign_over",
            )
        at = path("campaigns", campaign["id"])
        if preview or not (yes or campaign["state"] != "draft"):
            campaign = client.post(f"{at}/preview", {"dry": dry})
            _show_preview(campaign, json=json)
        if preview or not (yes or campaign["state"] != "draft" or typer.confirm("Start?", err=True)):
            note(f"Nothing was started. The campaign is {campaign['id']}.")
            return
        started = client.post(f"{at}/start")
        stopped = started["state"] == "paused" and started["reason"]  # by a person it is paused without one
        if budget is not None and stopped and stopped["code"] == "budget_exhausted":
            client.post(f"{at}/resume")
        campaign = _follow(client, campaign["id"], quiet=json)
        if out is not None:
            _export(client, campaign["id"], out)
    _end(campaign, json=json)


@campaigns.command("list")
def list_campaigns(json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Newest first."""
    with connect(server, tenant) as client:
        items = list(client.items("/api/campaigns"))
    if json:
        emit(items)
    else:
        table(("id", "name", "state", "done", "failed", "total", "cost"), (_row(each) for each in items))


@campaigns.command()
def show(campaign_id: CampaignId, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """How it is doing, and why it waits if it does."""
    with connect(server, tenant) as client:
        campaign = client.get(path("campaigns", campaign_id))
    if json:
        emit(campaign)
        return
    shown = {name: campaign[name] for name in ("id", "name", "state", "model", "budget", "created_at", "finished_at")}
    details({**shown, **campaign["counts"], "cost": dollars(campaign["cost"])})
    if campaign["reason"]:
        say(campaign["reason"]["message"])


@campaigns.command()
def pause(campaign_id: CampaignId, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Nothing new begins; what is being written is finished."""
    _act(campaign_id, "pause", json, server, tenant)


@campaigns.command()
def resume(campaign_id: CampaignId, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Go on where it was paused."""
    _act(campaign_id, "resume", json, server, tenant)


@campaigns.command()
def cancel(campaign_id: CampaignId, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Stop it for good; what is written stays."""
    _act(campaign_id, "cancel", json, server, tenant)


@campaigns.command()
def export(
    campaign_id: CampaignId,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .csv or .jsonl file; - is standard output.")],
    format: Annotated[str, typer.Option("--format", help="csv or jsonl; by the file's name without it.")] = "",
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """All its messages, in the order of the contacts."""
    with connect(server, tenant) as client:
        _export(client, campaign_id, out, format)


def read_template(file: Path) -> dict[str, str]:
    """`body` and what its head says: lines `name: value` between two lines of `---`. Raises Invalid."""
    try:
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise Invalid(f"{file} is not a text in UTF-8.", code="not_text") from error
    if not text.startswith("---\n"):
        return {"body": text}
    head, found, body = text[4:].partition("\n---\n")
    if not found:
        raise Invalid(f"{file}: its head begins with --- and never ends with another.", code="bad_head")
    told = {"body": body}
    for line in filter(str.strip, head.split("\n")):
        name, colon, value = line.partition(":")
        if not colon or name.strip() not in FRONT:
            raise Invalid(f"{file}: its head may say {', '.join(FRONT)}; not {line.strip()!r}.", code="bad_head")
        told[name.strip()] = value.strip()
    return told


def _made(
    client: Client, template: Path, contacts: Path, told: dict[str, str], wanted: dict[str, Any], *, quiet: bool
) -> dict[str, Any]:
    """The campaign of these files, made once; with these wishes, as far as they can still be met."""
    text = {name: value for name, value in told.items() if name in TEXT}
    checked = client.post("/api/templates/check", text)
    for problem in checked["problems"]:
        note(f"{template}:{problem['line']}:{problem['column']}: {problem['message']}")
    if checked["problems"]:
        raise Invalid(f"{template} has {count(len(checked['problems']), 'problem')}.", code="bad_template")
    content = contacts.read_bytes()
    list_name = f"{contacts.stem} {hashlib.sha256(content).hexdigest()[:8]}"
    bring(client, contacts, list_name, (), dry_run=False, quiet=quiet)
    stored = _template(client, told.get("name") or template.stem, text)
    files = {
        "list_id": list_name, "template_id": stored["id"], "template_version": stored["version"],
        "name": f"{stored['name']}: {contacts.name}",
    }  # fmt: skip
    wishes = {name: value for name, value in wanted.items() if value not in (None, {})}
    print = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    try:
        made: dict[str, Any] = client.send("POST", "/api/campaigns", {**files, **wishes}, key=f"cli-{print}")
    except Conflict as error:
        if error.code != "idempotency_key_reused":
            raise
        return _changed(client, client.get(path("campaigns", str(error.extra["campaign"]))), wishes)
    return made


def _changed(client: Client, campaign: dict[str, Any], wishes: dict[str, Any]) -> dict[str, Any]:
    """A campaign made before with other wishes. Once it has begun, only what it may cost and how fast can change."""
    if campaign["state"] == "cancelled":
        return campaign
    if campaign["state"] not in ("draft", "failed"):
        if kept := [name for name in wishes if name not in LATE and not _met(campaign[name], wishes[name])]:
            note(f"{campaign['id']} has begun, and keeps its {', '.join(kept)}.")
        wishes = {name: value for name, value in wishes.items() if name in LATE}
    changes = {name: value for name, value in wishes.items() if not _met(campaign[name], value)}
    changed: dict[str, Any] = client.send("PATCH", path("campaigns", campaign["id"]), changes) if changes else campaign
    return changed


def _met(has: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return all(has.get(name) == value for name, value in wanted.items())
    return bool(has == wanted) or (isinstance(has, str) and has.endswith(f"/{wanted}"))


def _template(client: Client, name: str, text: dict[str, str]) -> dict[str, Any]:
    """The template of this name, at a version with this text."""
    at = path("templates", name)
    try:
        client.get(at)
    except Missing:
        stored: dict[str, Any] = client.post("/api/templates", {"name": name, **text})
    else:
        whole = {"mode": "write", "system": "", "knowledge_query": "", **text}
        stored = client.send("PATCH", at, whole)
    return stored


def _follow(client: Client, campaign_id: str, *, quiet: bool) -> dict[str, Any]:
    """Until it is over, or waits for somebody."""
    with _bar(quiet=quiet) as (bars, bar):
        for kind, data in client.events(path("campaigns", campaign_id, "events")):
            if kind == "progress":
                ended = data["done"] + data["failed"] + data["skipped"]
                bars.update(bar, completed=ended, total=data["total"] or None, cost=dollars(data["cost"]))
            if (kind == "state" and data["state"] in OVER) or kind == "done":
                break
    campaign: dict[str, Any] = client.get(path("campaigns", campaign_id))
    return campaign


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("Writing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[cost]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, disable=quiet or not errors.is_terminal) as bars:
        yield bars, bars.add_task("", total=None, cost="")


def _show_preview(campaign: dict[str, Any], *, json: bool) -> None:
    if json:
        emit(campaign["preview"])
        return
    for each in campaign["preview"]["messages"]:
        contact = each["contact"]
        say(f"--- {contact['name'] or contact['key']} ({dollars(each['cost'])})")
        say(each["error"]["message"] if each["error"] else each["text"] or each["prompt"] or "")
    estimate = campaign["preview"]["estimate"]
    if estimate["basis"] == "nothing":
        say(f"{count(estimate['messages'], 'message')}: none of these could be prepared, so the cost can't be told.")
        return
    if not estimate["known"]:
        say(f"{count(estimate['messages'], 'message')}: nobody knows the price of {campaign['model']}.")
        return
    low, high = dollars(estimate["low"]), dollars(estimate["high"])
    cost = low if low == high else f"{low} to {high}"
    say(f"{count(estimate['messages'], 'message')}: about {cost}, {dollars(estimate['ceiling'])} at the most.")


def _end(campaign: dict[str, Any], *, json: bool) -> None:
    counts = campaign["counts"]
    if json:
        emit(campaign)
    else:
        told = [f"{count(counts['done'], 'message')} written"]
        told += [f"{counts[name]:,} {name}" for name in ("failed", "skipped") if counts[name]]
        say(f"{', '.join(told)}, {dollars(campaign['cost'])}; {campaign['id']} is {campaign['state']}")
        if campaign["reason"]:
            note(campaign["reason"]["message"])
    if campaign["state"] != "finished" or counts["failed"]:
        raise typer.Exit(1)


def _export(client: Client, campaign_id: str, out: Path, format: str = "") -> None:
    format = format or ("jsonl" if out.suffix in (".jsonl", ".ndjson") else "csv")
    at = f"{path('campaigns', campaign_id, 'export')}?format={format}"
    if str(out) == "-":
        client.download(at, sys.stdout.buffer, lambda done, total: None)
        return
    with out.open("wb") as file:
        client.download(at, file, lambda done, total: None)


def _act(campaign_id: str, act: str, json: bool, server: str | None, tenant: str | None) -> None:
    with connect(server, tenant) as client:
        campaign = client.post(path("campaigns", campaign_id, act))
    if json:
        emit(campaign)
    else:
        say(f"{campaign['id']} is {campaign['state']}")


def _row(campaign: dict[str, Any]) -> tuple[Any, ...]:
    counts = campaign["counts"]
    return (
        campaign["id"], campaign["name"], campaign["state"], counts["done"], counts["failed"], counts["total"],
        dollars(campaign["cost"]),
    )  # fmt: skip


def dollars(amount: float) -> str:
    return "$0" if not amount else f"${amount:.2f}" if amount >= 0.1 else f"${amount:.6f}".rstrip("0").rstrip(".")
