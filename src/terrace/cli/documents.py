"""`terrace ingest` and `terrace search`."""

from typing import Annotated, Any

import typer

from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.files import files_of
from terrace.cli.ingesting import Result, follow, send
from terrace.cli.output import JSONFlag, complain, console, count, emit, errors, say, table

EACH = 20  # results told one by one on a terminal; of more, only what failed


def register(app: typer.Typer) -> None:
    app.command()(ingest)
    app.command()(search)


def ingest(
    paths: Annotated[list[str], typer.Argument(help="Files, zips, folders or globs such as 'docs/**/*.pdf'.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where they go.")] = "default",
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="Tags they get.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they are read.")] = True,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Add documents and follow them until they can be asked; ends with 2 when one could not be read."""
    files = list(dict.fromkeys(file for given in paths for file in files_of(given)))
    fields = {"collection": collection, "tags": ",".join(tag or [])}
    try:
        with connect(server, tenant, working=wait) as client, _bars(quiet=json) as bars:
            results = send(client, files, fields, bars)
            if wait:
                follow(client, results, bars)
    except KeyboardInterrupt:
        complain("Stopped. What had arrived is kept, and read while a server or a worker runs.")
        raise
    if json:
        emit([result.told() for result in results])
    else:
        _report(results)
    if any(result.error for result in results):
        raise typer.Exit(2)


def _bars(*, quiet: bool) -> Any:
    """Progress bars on a terminal; nothing in a pipe."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=errors, disable=quiet or not errors.is_terminal)


def _report(results: list[Result]) -> None:
    told = [each for each in results if each.error or not console.is_terminal or len(results) <= EACH]
    for result in told:
        say(_line(result), "red" if result.error and console.is_terminal else None)
    failed = sum(result.error is not None for result in results)
    here = sum(result.error is None and result.duplicate for result in results)
    if len(results) > 1:
        parts = [f"{count(len(results) - failed - here, 'document')} added"]
        parts += [f"{here:,} already here"] * bool(here) + [f"{failed:,} failed"] * bool(failed)
        say(", ".join(parts))


def _line(result: Result) -> str:
    document = result.document
    if result.error or document is None:
        return f"x {result.path}: {(result.error or {}).get('message')}"
    if result.duplicate:
        return f"= {result.path}: already here as {document['id']}"
    state = {"no": "not read yet", "words": "searchable by words", "meaning": "ready"}[document["searchable"]]
    return f"+ {result.path}: " + (f"{count(document['chunks'], 'passage')}, " if document["chunks"] else "") + state


def search(
    query: str,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many passages.")] = 5,
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c", help="Search these only.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="Search documents with these tags.")] = None,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Find passages."""
    body = {"query": query, "k": k, "collections": collection or [], "tags": tag or []}
    with connect(server, tenant) as client:
        result = client.post("/api/search", body)
    if json:
        emit(result)
    elif not result["hits"]:
        say("Nothing was found.")
    else:
        table(("score", "document", "page", "passage"), (_row(hit) for hit in result["hits"]))


def _row(hit: dict[str, Any]) -> tuple[Any, ...]:
    passage = " ".join(hit["text"].split())
    short = passage if len(passage) <= 160 else passage[:159] + "…"
    return f"{hit['score']:.2f}", hit["title"] or hit["document_name"], hit["page"], short
