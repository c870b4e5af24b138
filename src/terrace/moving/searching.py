"""Are the same passages found here and there? Asked with words and vectors of passages that are in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from terrace.knowledge.base import Filter, Scored
from terrace.knowledge.health.base import InspectedIndex
from terrace.knowledge.index.words import content_words
from terrace.moving.sides import Side
from terrace.types import Scope

QUERIES = 40
TENANTS = 8  # those with the most passages
TOP = 10
WORDS = 8
ALIKE = 0.01  # passages whose scores are as near as this may change places


@dataclass(frozen=True, slots=True)
class Probe:
    tenant: str
    chunk_id: str  # the passage it is made of
    query: str
    model: str | None
    vector: bytes  # float16, little-endian


@dataclass(frozen=True, slots=True)
class Searched:
    queries: int
    equal: int  # with the same passages in both, but for those that score alike
    shared: float  # of the best ten, how many were the same
    lost: int  # that found the passage they are made of here, and not there


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


async def compare(here: InspectedIndex, there: InspectedIndex, asked: Sequence[Probe]) -> Searched:
    equal, shared, most, lost = 0, 0, 0, 0
    for probe in asked:
        ours, theirs = await _search(here, probe), await _search(there, probe)
        one, other = ({each.chunk_id for each in found[:TOP]} for found in (ours, theirs))
        shared += len(one & other)
        lost += probe.chunk_id in one - other
        most += max(len(ours[:TOP]), len(theirs[:TOP]))
        equal += _alike(ours, theirs) and _alike(theirs, ours)
    return Searched(len(asked), equal, shared / most if most else 1.0, lost)


def _alike(ours: Sequence[Scored], theirs: Sequence[Scored]) -> bool:
    """Whether what is missing there of our best is no better than the last of theirs."""
    known = {each.chunk_id for each in theirs}
    edge = theirs[TOP - 1].score if len(theirs) >= TOP else 0.0
    return all(each.chunk_id in known or each.score <= edge + ALIKE for each in ours[:TOP])


async def _search(index: InspectedIndex, probe: Probe) -> list[Scored]:
    import numpy as np

    vector: Any = None
    if probe.model is not None:
        vector = np.frombuffer(probe.vector, "<f2").astype(np.float32)
    return await index.search(Scope(probe.tenant), probe.query, vector, model=probe.model, k=2 * TOP, filter=Filter())


def _probe(side: Side, tenant: str, number: int) -> Probe:
    number, chunk_id, text = side.run(
        "SELECT number, id, text FROM chunks WHERE tenant_id = ? AND number >= ? ORDER BY number LIMIT 1",
        (tenant, number),
    )[0]
    table = next(each for each in side.tables() if each.name == "chunk_vectors")
    names = [each.name for each in table.columns]
    vectors = side.rows(table, 'WHERE "number" = ? ORDER BY "model" LIMIT 1', (number,))
    model, vector = (vectors[0][names.index("model")], vectors[0][names.index("vector")]) if vectors else (None, b"")
    return Probe(tenant, chunk_id, " ".join(content_words(text)[:WORDS]), model, vector)
