"""A download that is whole or not there."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from terrace.cli.client import Client
from terrace.cli.output import errors, note, size
from terrace.errors import Conflict


def export_to(client: Client, at: str, output: str | None, name: str, *, force: bool) -> None:
    """To `output`, or a file named after `name` and the day; `-` is standard output."""
    if output == "-":
        client.download(at, sys.stdout.buffer, lambda done, total: None)
        return
    to = Path(output).expanduser() if output else _named(name)
    if to.exists() and not force:
        raise Conflict(f"{to} is there already: name another with --output, or say --force.", code="file_exists")
    part = to.with_name(f"{to.name}.part")
    try:
        with _private(part) as file, _bar() as received:
            client.download(at, file, received)
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)
    note(f"{to} ({size(to.stat().st_size)})")


def _named(name: str) -> Path:
    safe = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "tenant"
    return Path(f"{safe}-{datetime.now(UTC).date().isoformat()}.zip")


@contextmanager
def _private(path: Path) -> Iterator[BinaryIO]:
    """It holds what a tenant's people wrote: nobody else on this machine reads it."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    with path.open("wb") as file:
        yield file


@contextmanager
def _bar() -> Iterator[Callable[[int, int | None], None]]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("Export"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
