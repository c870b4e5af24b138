"""One side of a move: a database looked at as tables of plain rows, whichever it is.

A row is the same on every side, so that rows can be compared and their sums too: true is 1, JSON is its text, a vector
its float16 components, little-endian.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Literal, Protocol

from sqlmodel import Session

Kind = Literal["plain", "boolean", "json", "vector"]
Row = tuple[Any, ...]
Key = tuple[Any, ...]

STATE = "moving_state"  # where a destination keeps how far it is
# Made from the rest, or of processes that run now.
DERIVED = frozenset(
    {
        "chunk_vector_removals",
        "chunk_words",
        "leaders",
        "vector_signs",
        "vector_spaces",
        "word_changes",
        "word_counts",
        "word_totals",
    }
)
NOT_ROWS = frozenset({"alembic_version", STATE})


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Table:
    """`columns` in the order of their names; `places` are where in a row its key stands."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    places: tuple[int, ...]

    def key_of(self, row: Row) -> Key:
        return tuple(row[place] for place in self.places)


class Side(Protocol):
    """Blocks; used by one thread."""

    dialect: str

    def version(self) -> str | None:
        """Of the schema."""

    def tables(self) -> Sequence[Table]:
        """Those whose rows are moved, each after those its foreign keys point to."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Reads within see one moment."""

    def reading(self) -> AbstractContextManager[Session]:
        """A snapshot of now, as a session; any thread may use it, one at a time."""

    def held(self) -> AbstractContextManager[None]:
        """A snapshot, and nobody else writes meanwhile: writes wait, and are refused when it takes long."""

    def stamp(self) -> object:
        """Two that are equal and not None: nothing was written in between. To be asked within a snapshot."""

    def writing(self) -> AbstractContextManager[Session]:
        """A transaction, durable at its end."""

    def count(self, table: Table) -> int: ...

    def page(self, table: Table, after: Key | None, limit: int) -> list[Row]:
        """At most `limit` rows in the order of keys, of those after the key `after`."""

    def keys(self, table: Table, after: Key | None, limit: int) -> list[Key]: ...

    def rows_of(self, table: Table, keys: Sequence[Key]) -> list[Row]:
        """Those there are of a page's keys, in no order."""

    def rows(self, table: Table, which: str, parameters: Sequence[Any]) -> list[Row]:
        """`which`: what stands behind the table's name in a SELECT."""

    def put(self, table: Table, rows: Sequence[Row]) -> None:
        """Within `writing`. Rows of the same keys are replaced."""

    def delete(self, table: Table, keys: Sequence[Key]) -> None: ...

    def numbers(self) -> dict[str, int]:
        """By table: the greatest number it gave a row, so that no number is given twice."""

    def set_numbers(self, numbers: dict[str, int]) -> None: ...

    def migrate(self, target: str = "head") -> None: ...

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """`?` stands for a parameter on every side."""

    def close(self) -> None: ...


def is_moved(name: str) -> bool:
    return name not in NOT_ROWS | DERIVED and not name.startswith(("chunk_text_", "sqlite_"))


def ordered(names: Iterable[str], points_to: Callable[[str], Iterable[str]]) -> list[str]:
    names = sorted(names)
    graph = {name: sorted(set(points_to(name)) & set(names) - {name}) for name in names}
    return list(TopologicalSorter(graph).static_order())


def table(name: str, columns: Iterable[Column], key: Sequence[str]) -> Table:
    ordered_columns = tuple(sorted(columns, key=lambda each: each.name))
    names = [each.name for each in ordered_columns]
    return Table(name, ordered_columns, tuple(key), tuple(names.index(each) for each in key))


def quoted(*names: str) -> str:
    return ", ".join(f'"{name}"' for name in names)


def beyond(table: Table, after: Key | None) -> str:
    """A condition whose parameters are the key's values."""
    return "" if after is None else f"WHERE ({quoted(*table.key)}) > {marks(after)}"


def among(table: Table, keys: Sequence[Key]) -> str:
    """A condition whose parameters are all the keys' values."""
    return f"WHERE ({quoted(*table.key)}) IN (VALUES {', '.join(map(marks, keys))})"


def marks(key: Key) -> str:
    return f"({', '.join('?' for _ in key)})"


def upsert(table: Table) -> str:
    """What an INSERT does with a row whose key is there already."""
    changed = [f'"{each.name}" = excluded."{each.name}"' for each in table.columns if each.name not in table.key]
    doing = f"UPDATE SET {', '.join(changed)}" if changed else "NOTHING"
    return f"ON CONFLICT ({quoted(*table.key)}) DO {doing}"
