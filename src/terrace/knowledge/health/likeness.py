"""Documents that say almost the same: alike in the mean of their passages' vectors."""

from typing import Any, NamedTuple

ALIKE = 0.97  # cosine of two documents' means
FLIPPED = 0.17  # share of signs in which such two may differ; a cosine of 0.97 makes it 0.08 on average
MOST_PAIRS = 10_000


class Pair(NamedTuple):
    document: str
    other: str
    likeness: float


class Means:
    """Gathers passages' vectors, in pieces, into one unit vector a document."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._sums: Any = None

    def __len__(self) -> int:
        return len(self._places)

    def add(self, documents: list[str], vectors: Any) -> None:
        """Vectors of another width than the first ones are passed over."""
        import numpy as np

        if self._sums is None:
            self._sums = np.zeros((64, vectors.shape[1]), np.float32)
        if vectors.shape[1] != self._sums.shape[1]:
            return
        places = self._places
        codes = np.array([places.setdefault(each, len(places)) for each in documents])
        if len(places) > len(self._sums):
            grown = np.zeros((max(len(places), 2 * len(self._sums)), self._sums.shape[1]), np.float32)
            grown[: len(self._sums)] = self._sums
            self._sums = grown
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        self._sums[codes[order][starts]] += np.add.reduceat(vectors[order].astype(np.float32), starts)

    def pairs(self, most: int) -> tuple[list[Pair], int]:
        """Each document with those after it that are alike, of the `most` that came last; and how many were compared.

        Signs first, 32 to a comparison of words; exact cosines for what they leave.
        """
        import numpy as np

        from terrace.knowledge.index.bits import dots

        if self._sums is None:
            return [], 0
        names = list(self._places)[-most:]
        rows = self._sums[: len(self._places)][-most:]
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        signs, width = _signs(rows), int(FLIPPED * rows.shape[1]) + 1
        found: list[Pair] = []
        for place in range(len(names) - 1):
            differing = np.bitwise_count(signs[place + 1 :] ^ signs[place]).sum(axis=1, dtype=np.uint16)
            near = np.flatnonzero(differing <= width) + place + 1
            if len(near) == 0:
                continue
            likeness = dots(rows[near], rows[place])
            found += [
                Pair(names[place], names[other], float(cosine))
                for other, cosine in zip(near.tolist(), likeness.tolist(), strict=True)
                if cosine >= ALIKE
            ]
            if len(found) >= MOST_PAIRS:
                break
        return found, len(names)


def _signs(rows: Any) -> Any:
    """uint64 (rows, words)"""
    import numpy as np

    words = -(-rows.shape[1] // 64)
    padded = np.zeros((len(rows), words * 64), bool)
    padded[:, : rows.shape[1]] = rows > 0
    return np.packbits(padded, axis=1).view(np.uint64)
