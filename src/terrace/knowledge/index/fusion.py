"""One ranking out of two: a convex combination of normalised scores, weighted by how far each one's best stands out.

A convex combination beats reciprocal rank fusion, which forgets how much better the first was than the second
(Bruch, Gai & Ingber, 2023, "An Analysis of Fusion Functions for Hybrid Retrieval"). No fixed weight is right for all
collections: words decide among encyclopaedia paragraphs, meaning among abstracts. So each question weighs for
itself: a ranking whose best stands clear of the next knows what it found; one whose ten best are alike does not.
docs/retrieval.md says what this was measured on.
"""

from collections.abc import Mapping

from terrace.knowledge.base import Scored

TEXT_TRUST = 0.8  # of full text against vectors when both stand out alike
NEXT = 10  # places within which the best is compared
# By meaning, in an exact search on whichever database: the scale of cosines begins at the farthest of them.
EXACT_CANDIDATES = 400


def fuse(text: Mapping[int, float], vector: Mapping[int, float] | None, k: int) -> list[Scored]:
    """The k best of both. `text`: BM25, higher is better; `vector`: cosines, None when there are none at all.

    A chunk without a vector (its document is still being embedded) is judged as the average of those that have one.
    """
    texts = _normalised(text, floor=0.0)
    if not vector:
        ranked = [(-score, number) for number, score in texts.items()]
    else:
        cosines = _normalised(vector, floor=None)
        missing = sum(cosines.values()) / len(cosines)
        weight = _text_weight(texts, cosines)
        rest = 1 - weight
        ranked = [
            (-(weight * texts.get(number, 0.0) + rest * cosines.get(number, missing)), number)
            for number in text.keys() | vector.keys()
        ]
    near = vector or {}
    return [Scored(number, -score, text.get(number), near.get(number)) for score, number in sorted(ranked)[:k]]


def _text_weight(texts: Mapping[int, float], cosines: Mapping[int, float]) -> float:
    if not texts:
        return 0.0
    text, vector = TEXT_TRUST * _sharpness(texts), _sharpness(cosines)
    return text / (text + vector) if text + vector > 0 else 0.5


def _sharpness(normalised: Mapping[int, float]) -> float:
    """How far the best stands above the mean of the next places, 0..1; a place that nothing takes counts as 0.

    Two passages that alone hold a rare word are both found, so that their tie says nothing against the words.
    """
    return 1 - sum(sorted(normalised.values(), reverse=True)[1:NEXT]) / (NEXT - 1)


def _normalised(scores: Mapping[int, float], floor: float | None) -> dict[int, float]:
    """Scores moved into 0..1: the best becomes 1, `floor` (or the worst) becomes 0."""
    if not scores:
        return {}
    high = max(scores.values())
    low = min(scores.values()) if floor is None else floor
    width = high - low
    return {number: (score - low) / width if width > 0 else 1.0 for number, score in scores.items()}
