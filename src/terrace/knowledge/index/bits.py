"""Nearest neighbours by the signs of a vector's components: 48 bytes for 384 dimensions.

Random-hyperplane hashing (Charikar, 2002) with the axes as hyperplanes: the Hamming distance of two sign
patterns grows with their angle. It picks candidates; exact cosines decide among them.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

BLOCK = 32_768  # rows whose distances fit a core's cache
START = 1024
WIDER = 8  # times as many are taken by plain distance as are then weighed


class _Arrays(NamedTuple):
    """Never changed below `size`, so that a search needs no lock while one writer appends."""

    bits: Any  # uint64 (words, capacity): a word's column is contiguous
    ids: Any  # int64 (capacity), ascending
    documents: Any  # int32 (capacity): places in the list of documents
    size: int


class SignBits:
    """Appends and removals come from one thread at a time; searches from any."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._words = -(-dimensions // 64)
        self._documents: dict[str, int] = {}
        self._arrays = self._room(START)

    def __len__(self) -> int:
        return self._arrays.size

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self._arrays[:3])

    def extend(self, ids: Sequence[int], documents: Sequence[str], vectors: Any) -> None:
        """`vectors`: any float (len(ids), dimensions); ids ascend and are greater than those here."""
        now = self._arrays
        size = now.size + len(ids)
        if size > now.ids.shape[0]:
            now = self._moved(now, np.arange(now.size), capacity=max(size, now.ids.shape[0] * 3 // 2))
        now.bits[:, now.size : size] = _signs(vectors)
        now.ids[now.size : size] = ids
        codes = self._documents
        now.documents[now.size : size] = [codes.setdefault(document, len(codes)) for document in documents]
        self._arrays = now._replace(size=size)

    def discard(self, ids: Collection[int]) -> None:
        now = self._arrays
        kept = np.flatnonzero(~np.isin(now.ids[: now.size], np.fromiter(ids, np.int64, len(ids))))
        if len(kept) < now.size:
            self._arrays = self._moved(now, kept, capacity=max(START, len(kept)))

    def nearest(self, query: Any, count: int, documents: Collection[str] | None = None) -> Any:
        """Ids (int64) of the `count` nearest rows, unordered.

        `documents` restricts the search, before it looks: the nearest of those, however far.
        """
        now = self._arrays
        rows = slice(now.size) if documents is None else self._rows_of(now, documents)
        return now.ids[rows][likest(now.bits[:, rows], query, count)]

    def _rows_of(self, now: _Arrays, documents: Collection[str]) -> Any:
        allowed = np.zeros(len(self._documents) + 1, bool)
        allowed[[self._documents[each] for each in documents if each in self._documents]] = True
        return np.flatnonzero(allowed[now.documents[: now.size]])

    def _room(self, capacity: int) -> _Arrays:
        return _Arrays(
            np.zeros((self._words, capacity), np.uint64), np.zeros(capacity, np.int64), np.zeros(capacity, np.int32), 0
        )

    def _moved(self, now: _Arrays, rows: Any, *, capacity: int) -> _Arrays:
        """The given rows in new arrays; searches under way keep the old ones."""
        new = self._room(capacity)
        new.bits[:, : len(rows)] = now.bits[:, rows]
        new.ids[: len(rows)] = now.ids[rows]
        new.documents[: len(rows)] = now.documents[rows]
        return new._replace(size=len(rows))


def likest(bits: Any, query: Any, count: int) -> Any:
    """Places (int64) of the `count` columns of `bits`, uint64 (words, rows), that are most like the query, unordered.

    By plain distance first, then, among many times as many, with the query's own magnitudes: an axis on which the
    query hardly lies says little about a neighbour.
    """
    rows = bits.shape[1]
    if rows <= count:
        return np.arange(rows)
    if rows <= WIDER * count:
        return _best(_weighed(bits, query), count)
    distances = _hamming(bits, _signs(np.asarray(query, np.float32)[None, :])[:, 0])
    edge = np.partition(distances, WIDER * count - 1)[WIDER * count - 1]
    near = np.flatnonzero(distances <= edge)[: 2 * WIDER * count]
    return near[_best(_weighed(bits[:, near], query), count)]


def columns(packed: bytes, rows: int, dimensions: int) -> Any:
    """uint64 (words, rows): the signs of so many vectors, one behind the other and each in whole bytes."""
    width = -(-dimensions // 8)
    padded = np.zeros((rows, -(-dimensions // 64) * 8), np.uint8)
    padded[:, :width] = np.frombuffer(packed, np.uint8).reshape(rows, width)
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _best(likeness: Any, count: int) -> Any:
    return np.argpartition(likeness, -count)[-count:]


def _signs(vectors: Any) -> Any:
    """uint64 (words, rows)"""
    signs = np.asarray(vectors) > 0
    return columns(np.packbits(signs, axis=1).tobytes(), *signs.shape)


def _weighed(bits: Any, query: Any) -> Any:
    """float32: the signs of each column of `bits` weighed by how much of the query lies on each axis."""
    rows = np.unpackbits(np.ascontiguousarray(bits.T).view(np.uint8), axis=1, count=len(query))
    return dots(rows.astype(np.float32), query)


def dots(rows: Any, query: Any) -> Any:
    """float32: each row's dot product with `query`, on this thread alone.

    The library behind `@` would wake threads of its own that spin against each other on a busy machine.
    """
    return np.einsum("ij,j->i", rows, np.asarray(query, np.float32))


def _hamming(bits: Any, signs: Any) -> Any:
    """Distances (uint16) of every column of `bits` to `signs`, in blocks that stay in cache."""
    distances = np.zeros(bits.shape[1], np.uint16)
    for start in range(0, bits.shape[1], BLOCK):
        block = distances[start : start + BLOCK]
        for word, sign in zip(bits, signs, strict=True):
            block += np.bitwise_count(word[start : start + BLOCK] ^ sign)
    return distances
