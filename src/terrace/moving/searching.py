"""Are the same passages found here and there? Asked with words and vectors of passages that are in both.

Both look at all there is, not through a graph or at the likeliest only. So what they find is the same, but for the last
digits of the scores.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from terrace.knowledge.base import Scored
from terrace.knowledge.health.base import InspectedIndex
from terrace.knowledge.index.words import content_words
from terrace.moving.sides import Side
from terrace.types import Scope

QUERIES = 40
TENANTS = 8  # those with the most passages
TOP = 10
FOUND = 2 * TOP  # looked at beyond the best: those that score alike may stand there
WORDS = 8
# Scores as near as this are the same: two databases add up in another order, and PostgreSQL counts a word no further
# than to 127 in a passage.
ALIKE = 0.02


@dataclass(frozen=True, slots=True)
class Probe:
    tenant: str
    chunk_id: str  # the passage it is made of
    query: str
    model: str | None
    vector: bytes  # float16, little-endian


@dataclass(frozen=True, slots=True)
class Moment:
    """A database as it was at one moment, whoever writes to it now."""

    side: Side
    session: Session
    index: InspectedIndex


@dataclass(frozen=True, slots=True)
class Searched:
    queries: int
    equal: int  # the same best passages in both with the same scores; those that score alike may change places


def probes(side: Side) -> list[Probe]:
    """Within a snapshot: passages spread evenly over the largest tenants."""
    tenants = side.run(
        "SELECT tenant_id, count(*), min(number), max(number) FROM chunks GROUP BY tenant_id "
        f"ORDER BY count(*) DESC, tenant_id LIMIT {TENANTS}"
    )
    each = -(-QUERIES // max(1, len(tenants)))
    found = []
    for tenant, count, first, last in tenants:
        steps = min(each, count)
        places = dict.fromkeys(first + (last - first) * step // max(1, steps - 1) for step in range(steps))
        found += [_probe(side, tenant, place) for place in places]
    return found


def compare(here: Moment, there: Moment, asked: Sequence[Probe]) -> Searched:
    equal = 0
    spaces: dict[tuple[str, str | None, int], list[Probe]] = {}
    for probe in asked:
        spaces.setdefault((probe.tenant, probe.model, len(probe.vector)), []).append(probe)
    with ThreadPoolExecutor(1, thread_name_prefix="searching") as beside:
        for (tenant, model, _), alike in spaces.items():
            searching = beside.submit(_search, there, tenant, model, alike)
            pairs = zip(_search(here, tenant, model, alike), searching.result(), strict=True)
            equal += sum(_among(ours, theirs) and _among(theirs, ours) for ours, theirs in pairs)
    return Searched(len(asked), equal)


def _among(ours: Sequence[Scored], theirs: Sequence[Scored]) -> bool:
    """Whether each of our best is there with the same scores, or just fell off the end of what scores alike there."""
    known = {each.number: each for each in theirs}
    edge = theirs[-1].score + ALIKE if len(theirs) == FOUND else 0.0
    return all(_alike(each, known[each.number]) if each.number in known else each.score <= edge for each in ours[:TOP])


def _alike(one: Scored, other: Scored) -> bool:
    return (
        abs(one.score - other.score) <= ALIKE
        and _near(one.text_score, other.text_score)
        and _near(one.vector_score, other.vector_score)
    )


def _near(one: float | None, other: float | None) -> bool:
    """A score of a part; where one has none, the whole tells."""
    return one is None or other is None or abs(one - other) <= ALIKE * max(1.0, abs(one))


def incomplete(moment: Moment) -> int:
    """Passages without their words, and words without their passage."""
    tenants = [tenant for (tenant,) in moment.side.run("SELECT DISTINCT tenant_id FROM chunks")]
    found = [moment.index.strays(moment.session, Scope(tenant), None) for tenant in tenants]
    return sum(each.missing + each.extra for each in found)


def _search(moment: Moment, tenant: str, model: str | None, probes: Sequence[Probe]) -> list[list[Scored]]:
    import numpy as np

    vectors: Any = None
    if model is not None:
        vectors = [np.frombuffer(probe.vector, "<f2").astype(np.float32) for probe in probes]
    queries = [probe.query for probe in probes]
    return moment.index.search_exactly(moment.session, Scope(tenant), queries, vectors, model=model, k=FOUND)


def _probe(side: Side, tenant: str, number: int) -> Probe:
    number, chunk_id, text = side.run(  # by its number: an index of the tenant's would bring all it has to be sorted
        "SELECT number, id, text FROM chunks WHERE tenant_id || '' = ? AND number >= ? ORDER BY number LIMIT 1",
        (tenant, number),
    )[0]
    table = next(each for each in side.tables() if each.name == "chunk_vectors")
    names = [each.name for each in table.columns]
    vectors = side.rows(table, 'WHERE "number" = ? ORDER BY "model" LIMIT 1', (number,))
    model, vector = (vectors[0][names.index("model")], vectors[0][names.index("vector")]) if vectors else (None, b"")
    return Probe(tenant, chunk_id, " ".join(content_words(text)[:WORDS]), model, vector)
