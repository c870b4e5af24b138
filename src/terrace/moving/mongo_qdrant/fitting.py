"""Whose vectors are these? Asked of the models themselves: what they make of some of the passages is laid beside what
came along. A name in a mapping file may be wrong; a cosine is not."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from terrace.errors import TerraceError
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.moving.mongo_qdrant.base import Fit
from terrace.moving.mongo_qdrant.mapping import Mapping
from terrace.types import Scope

log = logging.getLogger(__name__)

SAMPLES = 24
SAME = 0.98  # median cosine: int8 of the built-in model is 0.992 to fp32, and 0.993 to itself in other batches
CLOSER = 0.005  # by how much another model must be nearer than the one that serves
PRECISIONS = ("int8", "fp32")

Opener = Callable[[str, str], StatefulEmbedder]  # of (setting, precision); absent rather than raising


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that vectors may be of. `key`: what its vectors are kept under here; empty when there are none yet."""

    setting: str
    precision: str
    embedder: StatefulEmbedder
    key: str = ""
    serves: bool = False


def candidates(mapping: Mapping, known: Sequence[Candidate], opener: Opener, configured: str) -> list[Candidate]:
    """Those here, then what the mapping names, then the configured model's other precision."""
    found = list(known)
    seen = {(each.setting, each.precision) for each in known}
    named = mapping.vectors.model or configured
    wanted = (mapping.vectors.precision,) if mapping.vectors.precision else PRECISIONS
    for setting, precision in [(named, each) for each in wanted]:
        if setting not in ("", "none") and (setting, precision) not in seen:
            found.append(Candidate(setting, precision, opener(setting, precision)))
    return found


async def fit(
    samples: Sequence[tuple[str, str, bytes]], dimensions: int, among: Sequence[Candidate], scope: Scope
) -> Fit:
    """`samples`: (chunk, text, vector). The likeliest of `among`, the one that serves where it is about as near."""
    tried: list[tuple[float, Candidate]] = []
    away: list[str] = []
    for each in among:
        if each.embedder.state().state == "absent":
            away.append(f"{each.setting}: {each.embedder.state().why}")
        elif each.embedder.dimensions in (0, dimensions):
            try:
                likeness = await _likeness(each.embedder, samples, scope)
            except TerraceError as error:
                away.append(f"{each.setting}: {error.message}")
                continue
            tried.append((likeness + (CLOSER if each.serves else 0.0), each))
    best = max(tried, key=lambda pair: pair[0], default=None)
    if best is None or best[0] < SAME:
        return Fit("none", dimensions=dimensions, likeness=_of(best), why=_why_not(dimensions, best, away))
    likeness, winner = best
    return Fit(
        kind="serving" if winner.serves else "generation",
        key=winner.key,
        model=winner.embedder.name,
        setting=winner.setting,
        precision=winner.precision,
        dimensions=dimensions,
        likeness=_of(best),
    )


def _of(best: tuple[float, Candidate] | None) -> float | None:
    return None if best is None else round(best[0] - (CLOSER if best[1].serves else 0.0), 4)


def _why_not(dimensions: int, best: tuple[float, Candidate] | None, away: Sequence[str]) -> str:
    if best is not None:
        told = f"{best[1].embedder.name} makes others of the same passages (median cosine {_of(best):.3f})"
    else:
        told = f"No embedding model here makes vectors of {dimensions} dimensions"
    rest = f"; {'; '.join(away)}" if away else ""
    return f"{told}{rest}. Name the model that made them in vectors.model to keep them."


async def _likeness(embedder: StatefulEmbedder, samples: Sequence[tuple[str, str, bytes]], scope: Scope) -> float:
    """Median cosine; -1 where the widths differ."""
    import numpy as np

    made: Any = await embedder.embed([text for _, text, _ in samples], scope=scope)
    if not len(samples) or made.shape[1] * 4 != len(samples[0][2]):
        return -1.0
    theirs = units([vector for _, _, vector in samples])
    return float(median(np.sum(made * theirs, axis=1).tolist()))


def units(vectors: Sequence[bytes]) -> Any:
    """float32 rows of length one."""
    import numpy as np

    matrix = np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), -1)
    rows: Any = matrix / np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    return rows.astype(np.float32)
