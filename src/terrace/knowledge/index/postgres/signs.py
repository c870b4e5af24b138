"""The signs of the vectors among which somebody searches, put together once for those who search there again.

A row of `vector_signs` holds those of one document. It is never changed, only replaced by one with another number: what
was made of rows with these numbers, and no others, is what would be made of them now. So a search asks for the numbers,
and for the rows themselves, a hundred times as many bytes, where it has nothing made of them yet.
"""

import time
from threading import Lock
from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.knowledge.index.postgres.allowing import Allowed, narrowed
from terrace.knowledge.index.postgres.asking import SETTINGS, ask
from terrace.storage.database import driver_of
from terrace.types import Scope

MOST_BYTES = 32 * 1024 * 1024  # 600,000 vectors of 384 dimensions
KEPT_SECONDS = 600.0  # a database that is made anew counts its rows from one again


class Signs(NamedTuple):
    numbers: Any  # int64 (rows,): of the chunks
    columns: Any  # uint64 (words, rows), as `terrace.knowledge.index.bits` has them
    until: float

    @property
    def bytes(self) -> int:
        return int(self.numbers.nbytes + self.columns.nbytes)


Key = tuple[str, str, int, bytes]  # tenant, model, dimensions, numbers of rows


class KeptSigns:
    """For any thread. What was asked for longest ago makes room for what is new."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._bytes = 0
        self._lock = Lock()
        self._kept: dict[Key, Signs] = {}

    def get(self, key: Key) -> Signs | None:
        with self._lock:
            found = self._take(key)
            if found is None or time.monotonic() > found.until:
                return None
            self._put(key, found)
            return found

    def keep(self, key: Key, signs: Signs) -> None:
        with self._lock:
            self._take(key)
            while self._kept and self._bytes + signs.bytes > self._most:
                self._take(next(iter(self._kept)))
            if signs.bytes <= self._most:
                self._put(key, signs)

    def _take(self, key: Key) -> Signs | None:
        found = self._kept.pop(key, None)
        self._bytes -= 0 if found is None else found.bytes
        return found

    def _put(self, key: Key, signs: Signs) -> None:
        self._kept[key] = signs
        self._bytes += signs.bytes


def likest(
    session: Session, scope: Scope, model: str, query: Any, count: int, among: Allowed | None, kept: KeptSigns
) -> list[int]:
    """Numbers of the chunks whose vectors have signs most like the query's, unordered."""
    from terrace.knowledge.index import bits

    condition, parameters = narrowed(among)
    rows = f"FROM vector_signs WHERE tenant_id = %s AND model = %s AND dimensions = {len(query)} {condition}"
    given = scope.tenant, model, *parameters
    [(made_of,)] = ask(session, f"SELECT string_agg(int8send(id), ''::bytea ORDER BY id) {rows}", given, SETTINGS)
    if made_of is None:  # what passes is not embedded yet
        return []
    key = scope.tenant, model, len(query), made_of
    signs = kept.get(key)
    if signs is None:
        signs = _read(session, rows, given, len(query))
        kept.keep(key, signs)
    found: list[int] = signs.numbers[bits.likest(signs.columns, query, count)].tolist()
    return found


def _read(session: Session, rows: str, given: tuple[Any, ...], dimensions: int) -> Signs:
    import numpy as np

    from terrace.knowledge.index.bits import columns

    with driver_of(session).cursor(binary=True) as cursor:
        found = cursor.execute(f"SELECT numbers, signs {rows}", given).fetchall()
    numbers = np.frombuffer(b"".join([row[0] for row in found]), ">i8").astype(np.int64)
    packed = b"".join([row[1] for row in found])
    return Signs(numbers, columns(packed, len(numbers), dimensions), time.monotonic() + KEPT_SECONDS)
