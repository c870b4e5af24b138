"""`terrace analyze`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.output import JSONFlag, emit, errors, note, plain
from terrace.errors import BY_KIND, Conflict, Internal, Invalid


def register(app: typer.Typer) -> None:
    app.command()(analyze)


def analyze(
    file: Annotated[Path, typer.Argument(help="A PDF, a picture, or a Word, PowerPoint or text file.")],
    type: Annotated[str, typer.Option("--type", "-t", help="resume, invoice, contract or free.")] = "free",
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What is asked, in your own words.")] = "",
    schema: Annotated[Path | None, typer.Option("--schema", help="A JSON schema of the fields to be filled.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Which model looks at it.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the markdown to this file.")] = None,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Have a file looked at by a vision model, page by page; prints the answer. Ctrl-C leaves it running."""
    fields = {"type": type, "prompt": prompt, "schema": _read(schema), "model": model or ""}
    with connect(server, tenant, working=True) as client:
        sent = client.send_file("/api/analyses", file, {name: value for name, value in fields.items() if value})
        _follow(client, sent, quiet=json)
        analysis = client.get(path("analyses", sent["id"]))
    if analysis["state"] != "succeeded":
        raise _ended(analysis)
    if output is not None:
        output.write_text(analysis["result"]["markdown"] + "\n", encoding="utf-8")
    if json:
        emit(analysis)
    else:
        _print(analysis, written=output)


def _read(schema: Path | None) -> str:
    if schema is None:
        return ""
    try:
        return schema.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{schema} is not UTF-8 text; a schema is JSON.", code="bad_schema") from error


def _follow(client: Client, sent: dict[str, Any], *, quiet: bool) -> None:
    """A bar on a terminal until it is over."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=errors, disable=quiet or not errors.is_terminal) as bars:
        bar = bars.add_task("Waiting", total=None)
        for kind, data in client.events(path("analyses", sent["id"], "events")):
            if kind == "progress":
                bars.update(bar, description=data["note"], completed=data["done"], total=data["total"])


def _print(analysis: dict[str, Any], *, written: Path | None) -> None:
    """The answer on standard output; what there is to know about it beside."""
    result = analysis["result"]
    if written is None:
        sys.stdout.write(plain(result["markdown"]) + "\n")
        sys.stdout.flush()
    else:
        note(f"Written to {written}.")
    if result["fields"] is not None:
        note("")
        for name, value in _flat(result["fields"]).items():
            note(f"{name}: {value}")
    note("")
    note(analysis["why"])
    for warning in result["warnings"]:
        note(f"Note: {warning}")


def _flat(fields: Any) -> dict[str, Any]:
    """What is filled, a line each."""
    if not isinstance(fields, dict):
        return {"fields": fields}
    return {
        str(name): "; ".join(_one(each) for each in value) if isinstance(value, list) else _one(value)
        for name, value in fields.items()
        if value not in (None, [], {}, "")
    }


def _one(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(_one(each) for each in value.values() if each not in (None, [], {}, ""))
    return str(value)


def _ended(analysis: dict[str, Any]) -> Exception:
    error = analysis["error"]
    if analysis["state"] == "cancelled" or error is None:
        return Conflict("The analysis was cancelled before it was finished.", code="cancelled")
    return BY_KIND.get(error["kind"], Internal)(error["message"], code=error["code"])
