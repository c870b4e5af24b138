"""`terrace ingest` and `terrace search`."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from terrace.cli.client import Client, Server, connect, path
from terrace.cli.output import JSONFlag, console, emit, errors, table
from terrace.errors import Invalid, Missing, TerraceError

POLL = 0.3  # seconds between two looks at the documents being read


def register(app: typer.Typer) -> None:
    app.command()(ingest)
    app.command()(search)


def ingest(
    paths: Annotated[list[str], typer.Argument(help="Files, folders or globs such as 'docs/**/*.pdf'.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where they go.")] = "default",
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="Tags they get.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they are read.")] = True,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """Add documents and follow them until they can be asked; ends with 2 when one could not be read."""
    files = list(dict.fromkeys(file for given in paths for file in _files(given)))
    if not files:
        raise Missing("There are no files there.")
    fields = {"collection": collection, "tags": ",".join(tag or [])}
    with connect(server) as client:
        results = _upload_and_follow(client, files, fields, wait=wait, quiet=json)
    failed = [result for result in results if result["error"]]
    if json:
        emit(results)
    else:
        _report(results)
    if failed:
        raise typer.Exit(2)


def _files(given: str) -> Iterator[Path]:
    """A file, every file below a folder, or what a pattern names; hidden ones are left out."""
    found = Path(given).expanduser()
    if found.is_file():
        yield found
        return
    if found.is_dir():
        candidates = found.rglob("*")
    else:
        base = Path(found.anchor or ".")
        pattern = str(found.relative_to(found.anchor)) if found.anchor else given
        try:
            candidates = base.glob(pattern)
        except (ValueError, NotImplementedError) as error:
            raise Invalid(f"{given} is neither a file, a folder nor a pattern: {error}") from error
    yield from sorted(
        each for each in candidates if each.is_file() and not any(part.startswith(".") for part in each.parts[-3:])
    )


def _upload_and_follow(
    client: Client, files: list[Path], fields: dict[str, str], *, wait: bool, quiet: bool
) -> list[dict[str, Any]]:
    results = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=errors, disable=quiet) as progress:
        sending = progress.add_task("Sending", total=len(files))
        for file in files:
            results.append(_send(client, file, fields))
            progress.advance(sending)
        waiting = [result for result in results if result["document"] and not result["error"]]
        if wait:
            _follow(client, waiting, progress)
    return results


def _send(client: Client, file: Path, fields: dict[str, str]) -> dict[str, Any]:
    try:
        document = client.upload(file, fields)["document"]
    except TerraceError as error:
        return {"path": str(file), "document": None, "error": {"code": error.code, "message": error.message}}
    return {"path": str(file), "document": document, "error": None}


def _follow(client: Client, waiting: list[dict[str, Any]], progress: Progress) -> None:
    reading = progress.add_task("Reading", total=len(waiting))
    while waiting:
        left = []
        for result in waiting:
            document = result["document"] = client.get(path("documents", result["document"]["id"]))
            if document["state"] in ("ready", "failed"):
                result["error"] = document["error"]
                progress.advance(reading)
            else:
                left.append(result)
        waiting = left
        time.sleep(POLL if waiting else 0)


def _report(results: list[dict[str, Any]]) -> None:
    for result in results:
        document = result["document"]
        if result["error"]:
            console.print(f"[red]x[/] {result['path']}: {result['error']['message']}")
        elif document["duplicate"]:
            console.print(f"= {result['path']}: already here as {document['id']}", markup=False)
        else:
            by = {"no": "not yet searchable", "words": "searchable by words", "meaning": "ready"}
            console.print(
                f"+ {result['path']}: {document['chunks']} passages, {by[document['searchable']]}", markup=False
            )


def search(
    query: str,
    k: Annotated[int, typer.Option("-k", help="How many passages.")] = 5,
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t")] = None,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """Find passages."""
    body = {"query": query, "k": k, "collections": collection or [], "tags": tag or []}
    with connect(server) as client:
        result = client.post("/api/search", body)
    if json:
        emit(result)
        return
    rows = (
        (
            f"{hit['score']:.2f}",
            hit["title"] or hit["document_name"],
            hit["page"],
            " ".join(hit["text"].split())[:160],
        )
        for hit in result["hits"]
    )
    table(("score", "document", "page", "passage"), rows)
