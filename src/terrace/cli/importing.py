"""`terrace import`: from other systems into this one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terrace.cli.output import JSONFlag, count, emit, emit_line, errors, say, table
from terrace.errors import Invalid
from terrace.settings import Settings
from terrace.types import DEFAULT_TENANT, Scope, moment

if TYPE_CHECKING:
    from terrace.moving.mongo_qdrant.base import Fit, Plan, Report
    from terrace.moving.mongo_qdrant.service import Imports

commands = typer.Typer(
    name="import", help="Bring documents, passages and vectors from other systems.", no_args_is_help=True
)

Tenant = Annotated[str, typer.Option(help="The tenant it comes into, by name or id.")]
Progress = Callable[[str, int, int | None], None]


def register(app: typer.Typer) -> None:
    commands.command("mongo-qdrant")(mongo_qdrant)
    commands.command("list")(listed)
    commands.command("show")(show)
    app.add_typer(commands)


def mongo_qdrant(
    mapping: Annotated[Path | None, typer.Option(help="The mapping file (TOML): which fields are what.")] = None,
    mongo: Annotated[
        str, typer.Option(envvar="TERRACE_IMPORT_MONGO", help="mongodb://..., a folder of mongodump, or its archive.")
    ] = "",
    qdrant: Annotated[
        str, typer.Option(envvar="TERRACE_IMPORT_QDRANT", help="http://..., a local store, or a file of JSON lines.")
    ] = "",
    guess: Annotated[bool, typer.Option("--guess", help="Look at the source and print a mapping for it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come and what is wrong.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with one that was stopped.")] = False,
    rollback: Annotated[str, typer.Option(metavar="ID", help="Take this import back.")] = "",
    re_embed: Annotated[bool, typer.Option("--re-embed", help="Leave the vectors and make them anew.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    json: JSONFlag = False,
) -> None:
    """Documents, passages, metadata and vectors of MongoDB and Qdrant: servers, dumps, or files of them.

    A key of Qdrant goes in QDRANT_API_KEY.
    """
    if rollback:
        _rolled_back(tenant, rollback, json)
    elif guess:
        asyncio.run(_guess(mongo, qdrant))
    elif mapping is None:
        raise Invalid("Name a mapping file with --mapping; --guess writes one to begin with.", code="bad_mapping")
    else:
        asyncio.run(_import(tenant, mapping, mongo, qdrant, dry_run, resume, re_embed, json))


def listed(tenant: Tenant = DEFAULT_TENANT, json: JSONFlag = False) -> None:
    """The imports of a tenant, newest first."""

    async def rows() -> list[dict[str, Any]]:
        async with _imports(tenant) as (imports, scope):
            return [
                {
                    "id": row.id,
                    "state": row.state,
                    "at": moment(row.created_at).isoformat(),
                    "from": ", ".join(row.source["places"].values()),
                    "documents": ((row.report or {}).get("came") or {}).get("documents"),
                }
                for row in await imports.every(scope)
            ]

    found = asyncio.run(rows())
    if json:
        emit(found)
    else:
        table(("id", "state", "at", "from", "documents"), (tuple(each.values()) for each in found))


def show(import_id: Annotated[str, typer.Argument(metavar="ID")], tenant: Tenant = DEFAULT_TENANT) -> None:
    """Each document of an import with the metadata it had, a line of JSON each."""

    async def lines() -> None:
        async with _imports(tenant) as (imports, scope):
            async for each in imports.details(scope, import_id):
                emit_line(each)

    asyncio.run(lines())


# -- at work


async def _guess(mongo: str, qdrant: str) -> None:
    from terrace.moving.mongo_qdrant.guessing import guess
    from terrace.moving.mongo_qdrant.mapping import written

    async with _opened(mongo, qdrant) as (documents, points):
        say(written(await guess(documents, points)).rstrip())


async def _import(
    tenant: str, mapping: Path, mongo: str, qdrant: str, dry_run: bool, resume: bool, re_embed: bool, json: bool
) -> None:
    from terrace.moving.mongo_qdrant.house import Source
    from terrace.moving.mongo_qdrant.mapping import load
    from terrace.moving.mongo_qdrant.sources.opening import described

    read = load(mapping)
    places = {name: described(where) for name, where in (("mongo", mongo), ("qdrant", qdrant)) if where}
    async with _opened(mongo, qdrant) as (documents, points), _imports(tenant) as (imports, scope):
        source = Source(read, documents, points, places)
        with _bars() as progress:
            if dry_run:
                _told(await imports.plan(scope, source, re_embed=re_embed, progress=progress), json)
                return
            report = await imports.run(scope, source, resume=resume, re_embed=re_embed, progress=progress, began=_began)
    _reported(report, json)


def _rolled_back(tenant: str, import_id: str, json: bool) -> None:
    async def back() -> "Report":
        async with _imports(tenant) as (imports, scope):
            with _bars() as progress:
                return await imports.rollback(scope, import_id, progress)

    report = asyncio.run(back())
    if json:
        emit({"id": report.id, "state": report.state, "documents": report.came.documents})
    else:
        say(f"{report.id} is taken back: {count(report.came.documents, 'document')} went.")


@asynccontextmanager
async def _imports(tenant: str) -> AsyncIterator[tuple["Imports", Scope]]:
    from terrace import assembly
    from terrace.assembly.importing import importing

    settings = Settings.load()
    assembly.check(settings)
    async with importing(settings, tenant) as opened:
        yield opened


@asynccontextmanager
async def _opened(mongo: str, qdrant: str) -> AsyncIterator[Any]:
    """(documents, points), None for what was not named."""
    import os

    from terrace.moving.mongo_qdrant.sources.opening import open_documents, open_points

    if not mongo and not qdrant:
        raise Invalid("Say where to read from: --mongo, --qdrant, or both.", code="source_unsaid")
    documents = open_documents(mongo) if mongo else None
    points = open_points(qdrant, os.environ.get("QDRANT_API_KEY", "")) if qdrant else None
    try:
        yield documents, points
    finally:
        for each in (documents, points):
            if each is not None:
                await each.close()


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


def _began(import_id: str) -> None:
    errors.print(f"Import {import_id} (take it back with --rollback {import_id})", markup=False, soft_wrap=True)


# -- told


def _told(plan: "Plan", json: bool) -> None:
    if json:
        from dataclasses import asdict

        emit(asdict(plan))
        return
    rows = [
        ("documents", f"{plan.found.documents:,}", f"{plan.coming.documents:,}", _unread(plan)),
        ("passages", f"{plan.found.chunks:,}", f"{plan.coming.chunks:,}", ""),
        ("vectors", f"{plan.found.vectors:,}", f"{plan.coming.vectors:,}", _fitting(plan.fit)),
        *((f"into {name}", "", f"{documents:,}", "") for name, documents in plan.collections.items()),
    ]
    table(("what", "found", "comes", "note"), rows)
    if plan.problems:
        say("")
        table(
            ("problem", "how many", "what becomes of them", "such as"),
            ((each.code, f"{each.count:,}", each.told, ", ".join(each.examples)) for each in plan.problems),
        )


def _unread(plan: "Plan") -> str:
    return f"{plan.unread:,} have no passages; Terrace reads them itself" if plan.unread else ""


def _fitting(fit: "Fit") -> str:
    near = f" (median cosine {fit.likeness:.4f})" if fit.likeness is not None and fit.kind != "none" else ""
    if fit.kind == "serving":
        return f"kept: they are of {fit.model}, which search uses{near}"
    if fit.kind == "generation":
        return f"kept as a generation of their own, of {fit.model}{near}"
    return f"embedded anew: {fit.why}"


def _reported(report: "Report", json: bool) -> None:
    if json:
        from dataclasses import asdict

        emit(asdict(report))
    else:
        came = report.came
        say(f"{report.id}: {count(came.documents, 'document')}, {count(came.chunks, 'passage')}.")
        say(f"Vectors: {_fitting(report.fit).rstrip('.')}.")
        table(("check", "", "result"), ((c.name, "good" if c.good else "DIFFERS", c.told) for c in report.checks))
        for each in report.left_out:
            say(f"{each.count:,} x {each.code}: {each.told}")
        if report.waiting:
            say(f"{count(report.waiting, 'document')} wait for a job; they are made while Terrace runs.")
    if report.state != "verified":
        raise typer.Exit(1)
