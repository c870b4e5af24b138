"""`terrace models`."""

from typing import Annotated

import typer

from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, connect
from terrace.cli.output import JSONFlag, console, emit, errors, say, size, table
from terrace.errors import BY_KIND, Internal


def register(app: typer.Typer) -> None:
    app.command()(models)


def models(
    pull: Annotated[str | None, typer.Option(help="Have Ollama fetch this model.")] = None,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """Which models there are, and which one answers."""
    with connect(server, working=pull is not None) as client:
        if pull:
            _pull(client, pull)
        overview = client.get("/api/models")
    if json:
        emit(overview)
        return
    answering = overview["answering"]
    say(f"{answering['model']} answers: {answering['why']}")
    if answering["advice"]:
        say(answering["advice"], "dim" if console.is_terminal else None)
    for provider in overview["providers"]:
        wanted = provider["kind"] != "ollama"  # that one is looked for unasked
        if wanted and provider["state"] != "ok" and f"`{provider['name']}`" not in answering["why"]:
            say(f"{provider['name']} is {provider['state']}: {provider['why']}")
    rows = (
        (each["id"], each["kind"], size(each["size_bytes"]) if each["size_bytes"] else "") for each in overview["items"]
    )
    table(("model", "kind", "size"), rows)


def _pull(client: Client, model: str) -> None:
    """Have it fetched, with a bar on a terminal. Raises the error that ended it."""
    from rich.progress import Progress

    job = client.post("/api/models/pull", {"model": model})["id"]
    with Progress(console=errors, disable=not errors.is_terminal) as bars:
        bar = bars.add_task(model, total=None)
        for kind, data in client.events(path("jobs", job, "events")):
            if kind == "progress":
                bars.update(bar, description=data["note"] or model, completed=data["done"], total=data["total"] or None)
    ended = client.get(path("jobs", job))
    if error := ended["error"]:
        raise BY_KIND.get(error["kind"], Internal)(error["message"], code=error["code"])
    if ended["state"] != "succeeded":
        raise Internal(f"{model} was not fetched: its job is {ended['state']}.")
