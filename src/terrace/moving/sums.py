"""What a table holds, in a number and a hash: rows in the order of their keys, each written as MessagePack."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from terrace.moving.sides import Row, Side, Table

PAGE = 2000  # rows read at a time

Told = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Sum:
    rows: int
    sha256: str


class Summing:
    def __init__(self) -> None:
        self._rows = 0
        self._hash = hashlib.sha256()
        self._encode = msgspec.msgpack.Encoder().encode

    def add(self, rows: Sequence[Row]) -> None:
        self._rows += len(rows)
        self._hash.update(b"".join(map(self._encode, rows)))

    @property
    def sum(self) -> Sum:
        return Sum(self._rows, self._hash.hexdigest())


def pages(side: Side, table: Table) -> Iterator[list[Row]]:
    after = None
    while page := side.page(table, after, PAGE):
        yield page
        after = table.key_of(page[-1])


def sums_of(side: Side, tables: Iterable[Table], told: Told, doing: str = "checked") -> dict[str, Sum]:
    found = {}
    for each in tables:
        summing, total, done = Summing(), side.count(each), 0
        for page in pages(side, each):
            summing.add(page)
            done += len(page)
            told(f"{doing} {each.name}", done, max(total, done))
        found[each.name] = summing.sum
    return found
