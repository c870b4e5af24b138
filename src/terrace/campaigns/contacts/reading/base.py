"""The words of reading: how a table shall be read, its rows, what is wrong with one, what came of it all."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

TOLD = 100  # problems that are told one by one
SAMPLE = 5  # rows shown
SAMPLE_CHARS = 200  # of a cell that is shown
MAX_CELL = 1_000_000  # characters; in a larger one a quote was never closed
MAX_COLUMNS = 1_000


@dataclass(frozen=True, slots=True)
class Bounds:
    rows: int = 1_000_000
    fields: int = 200
    field_chars: int = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    """`mapping`: column -> field, empty for a column that is left out; other columns are guessed."""

    mapping: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""  # empty: found out
    delimiter: str = ""
    sheet: str = ""
    bounds: Bounds = Bounds()


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that cannot be taken, and what to do about it."""

    line: int  # in a text file; the row of a sheet or of a query
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    cells: list[str]

    @property
    def empty(self) -> bool:
        return not any(map(str.strip, self.cells))


class Table(Protocol):
    """What a format's reader gives. Iterating raises Invalid when the whole of it cannot be read."""

    header: list[str]
    notes: list[str]  # what was assumed; complete at the end

    def __iter__(self) -> Iterator[Row | Problem]: ...


@dataclass(slots=True)
class Summary:
    """What a table holds, apart from the people themselves."""

    columns: list[str]
    mapping: dict[str, str]  # every column; empty where it is left out
    sample: list[dict[str, str]] = field(default_factory=list)
    rows: int = 0  # with something in them
    good: int = 0
    repeated: int = 0  # good, and of a key that came before: the last one counts
    invalid: int = 0
    problems: list[Problem] = field(default_factory=list)  # the first TOLD
    notes: list[str] = field(default_factory=list)
    groups: int = 0  # of people, in the file beside
