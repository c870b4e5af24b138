"""`terrace backup`, `terrace restore` and `terrace verify`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from terrace.cli.moving import progress
from terrace.cli.output import JSONFlag, count, emit, say, size
from terrace.settings import Settings

File = Annotated[Path, typer.Argument(help="The backup, a tar file.")]
NoSecret = Annotated[bool, typer.Option("--no-secret", help="Leave the signing secret out; keep it elsewhere.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a restore that broke off.")]
Trust = Annotated[bool, typer.Option("--trust", help="Take a backup whose signature cannot be checked here.")]
Either = Annotated[Path, typer.Argument(help="A backup, or the manifest of a move.")]


def register(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)
    app.command()(verify)


def backup(file: File, no_secret: NoSecret = False, json: JSONFlag = False) -> None:
    """Write everything of this installation, which may be running, into one file."""
    import asyncio

    settings = Settings.load()
    asyncio.run(_backup(settings, file.expanduser().absolute(), no_secret, json))


async def _backup(settings: Settings, file: Path, no_secret: bool, json: bool) -> None:
    from terrace.accounts.secret import load_secret
    from terrace.moving.backup import Backing
    from terrace.moving.marks import whole
    from terrace.moving.places import database_of
    from terrace.storage import open_blobs

    whole(settings.data)
    secret = load_secret(settings.accounts, settings.data)
    own = settings.data / "secret"
    inside = None if no_secret or settings.accounts.secret.get_secret_value() or settings.accounts.secret_file else own
    blobs = await open_blobs(settings)
    try:
        with progress() as told:
            made = await Backing(database_of(settings), blobs, secret, inside, told).write(file)
    finally:
        await blobs.close()
    if json:
        emit({**asdict(made), "path": str(made.path)})
        return
    say(
        f"{made.path}: {count(made.rows, 'row')} and {count(made.files, 'file')}, {size(made.bytes)}, "
        f"in {made.seconds:.0f} s."
    )
    if made.secret:
        say("It holds the secret that signs tokens: whoever has this file is you. Keep it as safe as the data folder.")
    else:
        say("The secret that signs tokens is not in it: without it everybody logs in anew, and nothing sealed opens.")


def restore(file: File, resume: Resume = False, trust: Trust = False, json: JSONFlag = False) -> None:
    """Bring a backup back into this installation, which must be empty and not running."""
    import asyncio

    from terrace.assembly.house import own_folder

    settings = Settings.load()
    own_folder(settings)
    asyncio.run(_restore(settings, file.expanduser().absolute(), resume, trust, json))


async def _restore(settings: Settings, file: Path, resume: bool, trust: bool, json: bool) -> None:
    from terrace.accounts.secret import load_secret
    from terrace.moving.places import database_of
    from terrace.moving.restore import Restoring
    from terrace.storage import open_blobs

    named = settings.accounts.secret.get_secret_value() or settings.accounts.secret_file
    given = load_secret(settings.accounts, settings.data) if named else None
    blobs = await open_blobs(settings)
    try:
        with progress() as told:
            restoring = Restoring(database_of(settings), blobs, settings.data, told)
            done = await restoring.run(file, given, resume=resume, trust=trust)
    finally:
        await blobs.close()
    if json:
        emit(asdict(done))
        return
    say(f"{count(done.rows, 'row')} and {count(done.files, 'file')} restored and proved equal in {done.seconds:.0f} s.")
    say("`terrace serve` starts what was kept." if done.secret else "Start it with the secret of then.")


def verify(file: Either, json: JSONFlag = False) -> None:
    """Look through a backup, or check who signed the manifest of a move."""
    from terrace.accounts.secret import load_secret
    from terrace.moving.restore import look_through

    settings = Settings.load()
    with progress() as told:
        found = look_through(file.expanduser(), load_secret(settings.accounts, settings.data), told)
    if json:
        emit(asdict(found))
    else:
        say(f"{found.kind} {found.id}: {found.about}")
        say("Signed by this installation." if found.genuine else "Not signed by this installation.")
    if not found.genuine:
        raise typer.Exit(1)
