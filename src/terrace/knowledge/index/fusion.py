"""One ranking out of two: a convex combination of normalised scores.

Bruch, Gai & Ingber, 2023 ("An Analysis of Fusion Functions for Hybrid Retrieval"): it beats reciprocal rank
fusion, which forgets how much better the first was than the second.
"""

from collections.abc import Mapping
from typing import NamedTuple

TEXT_WEIGHT = 0.6  # docs/retrieval.md says what it was measured on


class Fused(NamedTuple):
    number: int
    score: float  # 0..1
    text: float | None
    vector: float | None  # cosine


def fuse(
    text: Mapping[int, float], vector: Mapping[int, float] | None, k: int, *, text_weight: float = TEXT_WEIGHT
) -> list[Fused]:
    """The k best of both. `text`: BM25, higher is better; `vector`: cosines, None when there are none at all.

    A chunk without a vector (its document is still being embedded) is judged as the average of those that have one.
    """
    texts = _normalised(text, floor=0.0)
    if not vector:
        ranked = [Fused(number, score, text[number], None) for number, score in texts.items()]
    else:
        cosines = _normalised(vector, floor=None)
        missing = sum(cosines.values()) / len(cosines)
        weight = text_weight if text else 0.0
        ranked = [
            Fused(
                number,
                weight * texts.get(number, 0.0) + (1 - weight) * cosines.get(number, missing),
                text.get(number),
                vector.get(number),
            )
            for number in text.keys() | vector.keys()
        ]
    return sorted(ranked, key=lambda each: (-each.score, each.number))[:k]


def _normalised(scores: Mapping[int, float], floor: float | None) -> dict[int, float]:
    """Scores moved into 0..1: the best becomes 1, `floor` (or the worst) becomes 0."""
    if not scores:
        return {}
    high = max(scores.values())
    low = min(scores.values()) if floor is None else floor
    width = high - low
    return {number: (score - low) / width if width > 0 else 1.0 for number, score in scores.items()}
