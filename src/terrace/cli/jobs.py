"""`terrace jobs`: list, show, follow, cancel, retry."""

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import typer

from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.output import JSONFlag, emit, emit_line, say, table

JobId = Annotated[str, typer.Argument(help="The job's id.")]
State = Literal["queued", "waiting", "running", "succeeded", "failed", "cancelled"]

jobs = typer.Typer(help="Jobs: list, show, follow, cancel, retry.", invoke_without_command=True)


def register(app: typer.Typer) -> None:
    app.add_typer(jobs, name="jobs")


@jobs.callback()
def list_jobs(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only these, such as knowledge.ingest.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="How many.")] = 20,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """The newest jobs; or, with a command, one of them."""
    context.obj = server, tenant
    if context.invoked_subcommand:
        return
    query = urlencode({key: value for key, value in (("state", state), ("kind", kind), ("limit", limit)) if value})
    with connect(server, tenant) as client:
        items = client.get(f"/api/jobs?{query}")["items"]
    if json:
        emit(items)
    elif not items:
        say("There are no such jobs." if state or kind else "There are no jobs.")
    else:
        table(("job", "kind", "state", "progress", "why"), (_row(job) for job in items))


def _at(context: typer.Context, server: str | None, tenant: str | None) -> tuple[str | None, str | None]:
    """Which server and tenant, said before the command or after it."""
    return server or context.obj[0], tenant or context.obj[1]


def _row(job: dict[str, Any]) -> tuple[Any, ...]:
    progress = _progress(job["progress"]) if job["finished_at"] is None else ""
    return job["id"], job["kind"], job["state"], progress, (job["error"] or {}).get("message")


def _progress(progress: dict[str, Any] | None) -> str:
    return f"{progress['done']:g}/{progress['total']:g} {progress['note']}" if progress else ""


@jobs.command()
def show(
    context: typer.Context, job_id: JobId, json: JSONFlag = False, server: Server = None, tenant: Tenant = None
) -> None:
    """Everything about one job."""
    with connect(*_at(context, server, tenant)) as client:
        job = client.get(path("jobs", job_id))
    if json:
        emit(job)
        return
    told = {**job, "progress": _progress(job["progress"]), "error": (job["error"] or {}).get("message")}
    for name, value in told.items():
        if value not in (None, "", False, {}, []):
            say(f"{name.replace('_', ' '):14} {value}")


@jobs.command()
def follow(
    context: typer.Context, job_id: JobId, json: JSONFlag = False, server: Server = None, tenant: Tenant = None
) -> None:
    """Its events, from the first to the last; ends with 1 unless it succeeded. --json prints one a line."""
    state = ""
    with connect(*_at(context, server, tenant), working=True) as client:
        for kind, data in client.events(path("jobs", job_id, "events")):
            state = str(data.get("state")) if kind == "done" else state
            if json:
                emit_line({"type": kind, "data": data})
            else:
                say(f"{kind:10} {_told(kind, data)}")
    if state != "succeeded":
        raise typer.Exit(1)


def _told(kind: str, data: dict[str, Any]) -> str:
    match kind:
        case "progress":
            return _progress({"note": "", **data})
        case "text" | "reasoning":
            return " ".join(str(data["text"]).split())
        case "sources":
            return f"{len(data['sources'])} found"
        case "answer":
            return " ".join(str(data["content"]).split())
        case "error":
            return str(data["message"])
    return "  ".join(f"{name}={value}" for name, value in data.items() if value is not None)


@jobs.command()
def cancel(
    context: typer.Context, job_id: JobId, json: JSONFlag = False, server: Server = None, tenant: Tenant = None
) -> None:
    """Stop it and its children."""
    with connect(*_at(context, server, tenant)) as client:
        _told_of(_act(client, job_id, "cancel"), json)


@jobs.command()
def retry(
    context: typer.Context, job_id: JobId, json: JSONFlag = False, server: Server = None, tenant: Tenant = None
) -> None:
    """Put a failed or cancelled job back in the queue."""
    with connect(*_at(context, server, tenant)) as client:
        _told_of(_act(client, job_id, "retry"), json)


def _act(client: Client, job_id: str, act: str) -> dict[str, Any]:
    job: dict[str, Any] = client.post(path("jobs", job_id, act))
    return job


def _told_of(job: dict[str, Any], json: bool) -> None:
    if json:
        emit(job)
        return
    stopping = job["cancel_requested"] and job["state"] == "running"
    say(f"{job['id']} is {'being stopped' if stopping else job['state']}")
