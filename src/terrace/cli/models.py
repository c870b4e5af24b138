"""`terrace models`."""

from typing import Annotated

import typer

from terrace.cli.client import Server, connect
from terrace.cli.output import JSONFlag, console, emit, errors, size, table
from terrace.errors import Unavailable


def register(app: typer.Typer) -> None:
    app.command()(models)


def models(
    pull: Annotated[str | None, typer.Option(help="Have Ollama fetch this model.")] = None,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """Which models there are, and which one answers."""
    with connect(server) as client:
        if pull:
            job = client.post("/api/models/pull", {"model": pull})
            for kind, data in client.events(f"/api/jobs/{job['id']}/events"):
                if kind == "progress":
                    errors.print(f"{data.get('note', '')} {data.get('done', 0):g}/{data.get('total', 0):g}")
                if kind == "done" and data.get("state") != "succeeded":
                    raise Unavailable(f"{pull} was not fetched; `terrace jobs show {job['id']}` tells why.")
        overview = client.get("/api/models")
    if json:
        emit(overview)
        return
    answering = overview["answering"]
    console.print(f"{answering['model']} answers: {answering['why']}", markup=False)
    if answering["advice"]:
        console.print(answering["advice"], markup=False, style="dim")
    rows = (
        (each["id"], each["kind"], size(each["size_bytes"]) if each["size_bytes"] else "") for each in overview["items"]
    )
    table(("model", "kind", "size"), rows)
