"""`terrace move`, `terrace backup`, `terrace restore` and `terrace verify`: how far they are, and what came of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from terrace.cli.output import errors, note

Told = Callable[[str, int, int], None]


@contextmanager
def progress() -> Iterator[Told]:
    """A bar for what is being done; where nobody watches, a line for each thing begun."""
    if not errors.is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors) as bars:
        tasks: dict[str, int] = {}

        def told(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = int(bars.add_task(doing, total=total))
            bars.update(tasks[doing], completed=done, total=total)  # type: ignore[arg-type]

        yield told


def _lines() -> Told:
    begun: set[str] = set()

    def told(doing: str, done: int, total: int) -> None:
        if doing not in begun:
            begun.add(doing)
            note(f"{doing}: {total:,}")

    return told
