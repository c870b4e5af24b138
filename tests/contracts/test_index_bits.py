"""Sign bits against a plain scan."""

import numpy as np
import pytest
from numpy.typing import NDArray

from terrace.knowledge.index.bits import SignBits


def clustered(rows: int, dimensions: int = 384) -> NDArray[np.float32]:
    """Unit rows about a few hundred centres, as texts lie about their subjects."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(200, dimensions))
    points = centres[rng.integers(200, size=rows)] + 0.7 * rng.normal(size=(rows, dimensions))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_the_true_neighbours_are_among_the_candidates() -> None:
    vectors = clustered(8_000)
    bits = SignBits(384)
    bits.extend(range(8_000), ["d"] * 8_000, vectors)
    hits = 0
    for query in vectors[:50] + 0.03 * np.random.default_rng(8).normal(size=(50, 384)):
        true = np.argsort(vectors @ query)[-10:]
        hits += len(set(true.tolist()) & set(bits.nearest(query, 100).tolist()))
    assert hits / 500 >= 0.98


def test_nothing_is_found_in_nothing() -> None:
    bits = SignBits(20)
    bits.extend([], [], np.zeros((0, 20)))
    assert bits.nearest(np.ones(20), 5).tolist() == []


@pytest.mark.parametrize("dimensions", [20, 64, 100, 384])
def test_any_width(dimensions: int) -> None:
    vectors = clustered(300, dimensions)
    bits = SignBits(dimensions)
    bits.extend(range(300), ["d"] * 300, vectors)
    assert 5 in bits.nearest(vectors[5], 20)


def test_growing_and_shrinking_keeps_each_row_with_its_id() -> None:
    vectors = clustered(5000)
    bits = SignBits(384)
    for start in range(0, 5000, 700):
        ids = range(start, min(start + 700, 5000))
        bits.extend(ids, [f"d{number % 7}" for number in ids], vectors[start : start + 700])
    bits.discard(set(range(0, 5000, 2)))
    assert len(bits) == 2500
    for number in (1, 2499, 4999):
        assert number in bits.nearest(vectors[number], 5)
        assert number in bits.nearest(vectors[number], 5, {f"d{number % 7}"})
        assert number not in bits.nearest(vectors[number], 5, {f"d{(number + 1) % 7}"})
    assert bits.nearest(vectors[1], 5, {"unknown"}).tolist() == []
    bits.discard(set(range(5000)))
    assert len(bits) == 0
    assert bits.nearest(vectors[1], 5).tolist() == []
