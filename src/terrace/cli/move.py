"""`terrace move`."""

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terrace.cli.moving import progress
from terrace.cli.output import JSONFlag, count, emit, say, size, table
from terrace.cli.up import running
from terrace.errors import Invalid, Missing
from terrace.settings import Settings

if TYPE_CHECKING:
    from terrace.moving.places import Place

HERE = "here"
PRIVATE = "private"

Source = Annotated[
    str, typer.Argument(help="Where from: sqlite:///file, postgresql://..., a folder, s3://..., here, private.")
]
Destination = Annotated[str, typer.Argument(help="Where to, of the same sort; it must be empty.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be moved; write nothing.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a move that broke off, or catch up with later writes.")
]
Rollback = Annotated[bool, typer.Option("--rollback", help="Empty the destination again; the source is never touched.")]


def register(app: typer.Typer) -> None:
    app.command()(move)


def move(
    source: Source,
    destination: Destination,
    dry_run: DryRun = False,
    resume: Resume = False,
    rollback: Rollback = False,
    json: JSONFlag = False,
) -> None:
    """Move a database or the files into another place, while they are read, and prove that all arrived."""
    import asyncio

    from terrace.moving.places import place

    if dry_run + resume + rollback > 1:
        raise Invalid("Say one of --dry-run, --resume and --rollback.", code="bad_options")
    settings = Settings.load()
    if source == destination:
        raise Invalid("Source and destination are the same place.", code="same_place")
    files = "blobs" in {place(each).kind for each in (source, destination) if each not in (HERE, PRIVATE)}
    with ExitStack() as kept:
        here, there = (_place(settings, each, files, kept) for each in (source, destination))
        if (here.kind == "blobs") != (there.kind == "blobs"):
            raise Invalid("A database goes into a database, files into a folder or a bucket.", code="bad_place")
        way = _files if files else _database
        asyncio.run(way(settings, here, there, "plan" if dry_run else "rollback" if rollback else "run", resume, json))


def _place(settings: Settings, address: str, files: bool, kept: ExitStack) -> "Place":
    """`here` is what the settings name, `private` the PostgreSQL of `terrace up --postgres`, started for the moment."""
    from terrace.moving.marks import whole
    from terrace.moving.places import Place, database_of, place

    if address == PRIVATE:
        return Place(kept.enter_context(running(settings)).url, "postgresql", name=PRIVATE)
    if address != HERE:
        return place(address)
    whole(settings.data)
    return _own_files(settings) if files else database_of(settings)


def _own_files(settings: Settings) -> "Place":
    from terrace.moving.places import place

    return place(settings.storage.blobs or str(settings.data / "blobs"))


async def _database(settings: Settings, here: "Place", there: "Place", what: str, resume: bool, json: bool) -> None:
    from terrace.accounts.secret import load_secret
    from terrace.moving.databases import DatabaseMove, told_of
    from terrace.moving.manifest import keep, signed

    secret = load_secret(settings.accounts, settings.data)
    with progress() as told:
        moving = DatabaseMove(here, there, told)
        plan = await moving.plan()
        if what == "rollback":
            await moving.roll_back()
        moved = await moving.run(resume=resume) if what == "run" else None
    if moved is None:
        _say_plan(asdict(plan), plan.tables, json) if what == "plan" else say(f"{there} is empty again.")
        return
    path = keep(signed(told_of(moved, plan), secret), settings.data / "moves")
    if json:
        emit({**told_of(moved, plan), "manifest": str(path)})
        return
    rows = sum(each.rows for each in moved.tables.values())
    say(f"{count(rows, 'row')} moved and proved equal in {moved.seconds:.0f} s.")
    say(f"{moved.searched.equal} of {moved.searched.queries} searches found the same.")
    if moved.altered:
        say(f"{count(moved.altered, 'row')} held a zero character, which PostgreSQL cannot keep: U+FFFD stands there.")
    say(
        f"Writes at the source waited {moved.held_seconds:.1f} s; what it writes from now on is not at the destination:"
    )
    say("stop what runs there, and `--resume` brings over what came since. The source was not changed.")
    say(f"Signed manifest: {path}")


async def _files(settings: Settings, here: "Place", there: "Place", what: str, resume: bool, json: bool) -> None:
    from terrace.accounts.secret import load_secret
    from terrace.moving.files import FilesMove
    from terrace.moving.manifest import keep, signed
    from terrace.moving.places import overlap
    from terrace.storage import open_blobs
    from terrace.types import new_id, now

    if overlap(here, there):
        raise Invalid("One of the two places lies within the other. Name one beside it.", code="same_place")
    secret = load_secret(settings.accounts, settings.data)
    source, destination = await open_blobs(_at(settings, here)), await open_blobs(_at(settings, there))
    try:
        with progress() as told:
            moving = FilesMove(source, destination, str(here), str(there), told)
            if what == "rollback":
                removed = await moving.roll_back()
                say(f"{count(removed, 'file')} removed from {there}.")
                return
            plan = await moving.plan()
            if not plan.files and here != _own_files(settings):
                raise Missing(f"There are no files in {here}.", code="no_files")
            moved = await moving.run(resume=resume) if what == "run" else None
    finally:
        await source.close()
        await destination.close()
    if moved is None:
        _say_plan(asdict(plan), {"files": plan.files}, json)
        return
    told_of = {"id": new_id("mov"), "kind": "move", "source": str(here), "destination": str(there), "at": now()}
    told_of |= {"bytes": moved.bytes, "files": asdict(moved.files), "seconds": round(moved.seconds, 3)}
    path = keep(signed(told_of, secret), settings.data / "moves")
    if json:
        emit({**told_of, "manifest": str(path)})
        return
    say(f"{count(moved.files.rows, 'file')} ({size(moved.bytes)}) moved and proved equal in {moved.seconds:.0f} s.")
    say("What comes in at the source from now on is not at the destination: `--resume` brings it over.")
    say(f"Signed manifest: {path}")


def _at(settings: Settings, where: "Place") -> Settings:
    return settings.model_copy(update={"storage": settings.storage.model_copy(update={"blobs": where.address})})


def _say_plan(plan: dict[str, Any], rows: dict[str, int], json: bool) -> None:
    if json:
        emit(plan)
        return
    table(("what", "rows"), ((name, f"{number:,}") for name, number in rows.items() if number))
    states = {
        "begun": "A move was begun there: --resume goes on.",
        "done": "It was filled already: --resume catches up.",
    }
    say(states.get(plan["state"], "The destination is empty.") + " Nothing was written.")
