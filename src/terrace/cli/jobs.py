"""`terrace jobs`: list, follow, cancel, retry; and `terrace doctor`."""

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from terrace.cli.client import Server, connect, path
from terrace.cli.output import JSONFlag, console, emit, table

JobId = Annotated[str, typer.Argument(help="The job's id.")]

jobs = typer.Typer(help="Jobs: list, show, follow, cancel, retry.", invoke_without_command=True)


def register(app: typer.Typer) -> None:
    app.add_typer(jobs, name="jobs")
    app.command()(doctor)


@jobs.callback()
def list_jobs(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="queued, waiting, running, succeeded, failed, cancelled.")] = None,
    kind: Annotated[str | None, typer.Option(help="Such as knowledge.ingest.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """The newest jobs."""
    if context.invoked_subcommand:
        return
    query = urlencode({key: value for key, value in (("state", state), ("kind", kind), ("limit", limit)) if value})
    with connect(server) as client:
        items = client.get(f"/api/jobs?{query}")["items"]
    if json:
        emit(items)
    else:
        table(("job", "kind", "state", "progress", "why"), (_row(job) for job in items))


def _row(job: dict[str, Any]) -> tuple[Any, ...]:
    progress = job["progress"]
    done = f"{progress['done']:g}/{progress['total']:g} {progress['note']}" if progress else ""
    return job["id"], job["kind"], job["state"], done, (job["error"] or {}).get("message")


@jobs.command()
def show(job_id: JobId, server: Server = None) -> None:
    """Everything about one job."""
    with connect(server) as client:
        emit(client.get(path("jobs", job_id)))


@jobs.command()
def follow(job_id: JobId, json: JSONFlag = False, server: Server = None) -> None:
    """Its events, from the first to the last."""
    with connect(server) as client:
        for kind, data in client.events(path("jobs", job_id, "events")):
            if json:
                emit({"type": kind, "data": data})
            else:
                console.print(kind, data, markup=False)


@jobs.command()
def cancel(job_id: JobId, server: Server = None) -> None:
    """Stop it and its children."""
    _act(job_id, "cancel", server)


@jobs.command()
def retry(job_id: JobId, server: Server = None) -> None:
    """Put a failed or cancelled job back in the queue."""
    _act(job_id, "retry", server)


def _act(job_id: str, act: str, server: str | None) -> None:
    with connect(server) as client:
        job = client.post(path("jobs", job_id, act))
    console.print(f"{job['id']} is {job['state']}", markup=False)


def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False, json: JSONFlag = False
) -> None:
    """Find what is stuck, orphaned or half-done, and mend it; ends with 1 while something is left."""
    import asyncio

    from terrace import assembly
    from terrace.settings import Settings

    findings = asyncio.run(assembly.doctor(Settings.load(), repair=repair))
    if json:
        emit(findings)
    elif not findings:
        console.print("All is well.")
    else:
        table(
            ("room", "what", "about", "state"),
            ((each["room"], each["message"], each["subject"], each["state"]) for each in findings),
        )
    if any(each["state"] != "repaired" for each in findings):
        raise typer.Exit(1)
