"""From rows to people: each checked, counted, and written in groups to a file that the server takes them from."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from terrace.campaigns.contacts.reading.base import (
    SAMPLE,
    SAMPLE_CHARS,
    TOLD,
    Bounds,
    Problem,
    Row,
    Summary,
    Table,
)
from terrace.campaigns.contacts.reading.mapping import fields_of
from terrace.campaigns.contacts.values import check_size, clean, clean_email, clean_key, clean_name, key_of
from terrace.errors import Invalid

GROUP = 500  # people of one transaction
GROUP_CHARS = 1_000_000
EVERY = 2_000  # rows between two words of progress


class Person(NamedTuple):
    """None: the table says nothing about it, and what is known stays. An empty text empties it."""

    key: str
    name: str | None
    email: str | None
    fields: dict[str, str]
    repeated: bool


Say = Callable[..., None]
_people = msgspec.msgpack.Decoder(list[Person])


def collect(table: Table, mapping: dict[str, str], bounds: Bounds, target: Path, progress: Say) -> Summary:
    """Read a table to its end. `progress(rows, 0)` is told now and then.

    Raises Invalid when it cannot be read as a whole, or holds too many rows.
    """
    columns = list(table.header)
    summary = Summary(columns, fields_of(columns, mapping, bounds.fields))
    reader = _People(columns, summary.mapping, bounds)
    seen: set[int] = set()
    short = 0
    with target.open("wb") as file:
        groups = _Groups(file)
        for row in table:
            if isinstance(row, Row) and row.empty:
                continue
            summary.rows += 1
            if summary.rows > bounds.rows:
                raise Invalid(
                    f"The table has more than {bounds.rows:,} rows. Split it; several imports may go into one list.",
                    code="too_many_rows",
                    status=413,
                )
            if summary.rows % EVERY == 0:
                progress(summary.rows, 0)
            made: Person | Problem
            if isinstance(row, Row):
                short += len(row.cells) < len(columns)
                if len(summary.sample) < SAMPLE:
                    summary.sample.append(_shown(columns, row.cells))
                made = reader.person(row, seen)
            else:
                made = row
            if isinstance(made, Person):
                summary.good += 1
                summary.repeated += made.repeated
                groups.add(made)
            else:
                summary.invalid += 1
                if len(summary.problems) < TOLD:
                    summary.problems.append(made)
        summary.groups = groups.end()
    summary.notes = [*table.notes, *_notes(summary, short)]
    return summary


def groups(path: Path, skip: int = 0) -> Iterator[bytes]:
    """The groups of a file that `collect` wrote, but the first `skip`."""
    with path.open("rb") as file:
        while header := file.read(4):
            length = int.from_bytes(header, "big")
            if skip:
                skip -= 1
                file.seek(length, 1)
            else:
                yield file.read(length)


def people(group: bytes) -> list[Person]:
    return _people.decode(group)


class _Groups:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._people: list[Person] = []
        self._chars = 0
        self._count = 0

    def add(self, person: Person) -> None:
        self._people.append(person)
        self._chars += sum(map(len, person.fields.values()))
        if len(self._people) >= GROUP or self._chars >= GROUP_CHARS:
            self._write()

    def end(self) -> int:
        if self._people:
            self._write()
        return self._count

    def _write(self) -> None:
        body = msgspec.msgpack.encode(self._people)
        self._file.write(len(body).to_bytes(4, "big"))
        self._file.write(body)
        self._people, self._chars = [], 0
        self._count += 1


class _People:
    """Makes people of rows by a mapping."""

    def __init__(self, columns: list[str], mapping: dict[str, str], bounds: Bounds) -> None:
        at = {mapping[name]: number for number, name in enumerate(columns) if mapping[name]}
        self._width = len(columns)
        self._key, self._name, self._email = at.pop("key", None), at.pop("name", None), at.pop("email", None)
        self._fields = [(number, field) for field, number in at.items()]
        self._bounds = bounds
        self._who = columns[self._key if self._key is not None else self._email or 0]

    def person(self, row: Row, seen: set[int]) -> Person | Problem:
        cells = row.cells
        if len(cells) != self._width:
            if any(cells[self._width :]):
                return Problem(
                    row.line,
                    f"This row has {len(cells)} cells where the first row names {self._width} columns. "
                    "Put quotes around a cell that holds the delimiter.",
                )
            cells = cells + [""] * (self._width - len(cells))
        try:
            return self._made(cells, seen)
        except Invalid as error:
            return Problem(row.line, error.message)

    def _made(self, cells: list[str], seen: set[int]) -> Person:
        email = None if self._email is None else clean_email(cells[self._email])
        name = None if self._name is None else clean_name(cells[self._name])
        given = clean(cells[self._key]) if self._key is not None else key_of(email or "")
        if not given:
            raise Invalid(f"The column {self._who!r} is empty, and it says who this is. Fill it in.")
        key = clean_key(given)
        fields = {field: clean(cells[number]) for number, field in self._fields}
        check_size(fields, most=self._bounds.fields, longest=self._bounds.field_chars)
        mark = hash(key)
        repeated = mark in seen
        seen.add(mark)
        return Person(key, name, email, fields, repeated)


def _shown(columns: list[str], cells: list[str]) -> dict[str, str]:
    cut = [clean(cell) for cell in cells]
    return {
        name: cell if len(cell) <= SAMPLE_CHARS else cell[: SAMPLE_CHARS - 1] + "…"
        for name, cell in zip(columns, cut, strict=False)
    }


def _notes(summary: Summary, short: int) -> Iterator[str]:
    if not summary.rows:
        yield "The table has names of columns and nothing below them."
    if short:
        rows = "1 row is" if short == 1 else f"{short:,} rows are"
        yield f"{rows} shorter than the first; what is not there counts as empty."
    if summary.repeated:
        rows = "1 row names" if summary.repeated == 1 else f"{summary.repeated:,} rows name"
        yield f"{rows} somebody whom an earlier row names; the last one counts."
    if summary.invalid > TOLD:
        yield f"Of {summary.invalid:,} rows that cannot be taken the first {TOLD} are told."
