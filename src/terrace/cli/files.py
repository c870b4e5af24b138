"""Which files a person means by a path."""

import os
from collections.abc import Iterator
from pathlib import Path

from terrace.errors import Invalid, Missing


def files_of(given: str) -> list[Path]:
    """A file, every file below a folder, or what a pattern names, sorted.

    What is hidden (`.git`, `.DS_Store`) counts only when it is named. Raises Missing when there is nothing.
    """
    named = Path(given).expanduser()
    if named.is_file():
        return [named]
    found = sorted(_below(named) if named.is_dir() else _matching(str(named)))
    if found:
        return found
    if named.is_dir():
        raise Missing(f"There are no files in {given}; hidden ones are left out.")
    if any(sign in given for sign in "*?["):
        raise Missing(f"No file matches {given}.")
    if named.exists():
        raise Invalid(f"{given} is neither a file nor a folder.")
    raise Missing(f"There is no {given}.")


def _below(folder: Path) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        raise Invalid(f"{error.filename} cannot be read: {error.strerror}.") from error

    for base, folders, names in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (path for name in names if not name.startswith(".") and (path := Path(base, name)).is_file())


def _matching(pattern: str) -> Iterator[Path]:
    from glob import iglob  # as a shell does it: a star names nothing hidden, `.*` does

    yield from (path for name in iglob(pattern, recursive=True) if (path := Path(name)).is_file())
