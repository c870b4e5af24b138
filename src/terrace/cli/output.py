"""What a person or a script reads: tables and bars on a terminal, plain lines in a pipe, JSON with `--json`."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

JSONFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # not exit 1 from wherever it happens


console = _Console(highlight=False)
errors = _Console(stderr=True, highlight=False)

BAR = 24  # cells of the longest bar beside a table

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Text of models and documents, without what would steer the terminal (escape codes, direction overrides)."""
    return _CONTROL.sub("", text)


def say(message: str, style: str | None = None) -> None:
    """One line on standard output; only a terminal breaks it."""
    console.print(plain(message), style=style, markup=False, soft_wrap=not console.is_terminal)


def complain(message: str) -> None:
    errors.print(
        plain(f"terrace: {message}"), style="red" if errors.is_terminal else None, markup=False, soft_wrap=True
    )


def note(message: str) -> None:
    """A line for the person, on standard error: what goes down the pipe stays alone."""
    errors.print(plain(message), markup=False, soft_wrap=True)


def secret_out(text: str) -> None:
    """A secret or a link, alone on standard output and never broken."""
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def details(told: dict[str, Any]) -> None:
    """What has a value, a line each."""
    for name, value in told.items():
        if value not in (None, "", False, {}, []):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            say(f"{name.replace('_', ' '):14} {shown}")


def emit(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def emit_line(value: Any) -> None:
    """One line of JSON on standard output, at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], bars: Sequence[float] = ()) -> None:
    """Columns on a terminal, the first two never broken; in a pipe a line for each row, separated by tabs.

    `bars` draws one for each row, the longest for the largest, on a terminal alone.
    """
    cells = [["" if cell is None else " ".join(plain(str(cell)).split()) for cell in row] for row in rows]
    if not console.is_terminal:
        sys.stdout.writelines("\t".join(row) + "\n" for row in ([*columns], *cells))
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, overflow="ellipsis" if index < 2 else "fold", no_wrap=index < 2)
    if bars:
        grid.add_column("", width=BAR)
    for index, row in enumerate(cells):
        grid.add_row(*(_literal(cell) for cell in row), *([_bar(bars[index], max(bars))] if bars else []))
    console.print(grid)


def _bar(value: float, largest: float) -> Any:
    from rich.bar import Bar

    return Bar(largest or 1, 0, value, width=BAR, color="cyan")


def _literal(text: str) -> Any:
    from rich.text import Text

    return Text(text)


@contextmanager
def waiting(note: str) -> Iterator[None]:
    """A spinner on a terminal, nothing elsewhere."""
    if not errors.is_terminal:
        yield
        return
    with errors.status(note):
        yield


def count(number: int, one: str) -> str:
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"


def size(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
