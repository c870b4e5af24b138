"""How alike two generations answer what was lately asked."""

from collections.abc import Sequence

from terrace.knowledge.base import Filter, Index
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.generations.base import Comparison
from terrace.types import Scope

BEST = 10


async def compare(
    index: Index, old: StatefulEmbedder, new: StatefulEmbedder, questions: Sequence[tuple[str, str]]
) -> Comparison:
    """`questions`: (tenant, query). Raises Unavailable when one of the two models is away."""
    overlaps: list[float] = []
    moves: list[int] = []
    for tenant, query in questions:
        before = await _best(index, old, Scope(tenant), query)
        after = await _best(index, new, Scope(tenant), query)
        if not before and not after:
            continue
        both = [chunk for chunk in before if chunk in after]
        overlaps.append(len(both) / max(len(before), len(after)))
        moves += [abs(before.index(chunk) - after.index(chunk)) for chunk in both]
    return Comparison(len(overlaps), _mean(overlaps), _mean(moves))


async def _best(index: Index, embedder: StatefulEmbedder, scope: Scope, query: str) -> list[int]:
    vector = (await embedder.embed([query], query=True, scope=scope))[0]
    found = await index.search(scope, query, vector, model=embedder.name, k=BEST, filter=Filter())
    return [each.number for each in found]


def _mean(numbers: Sequence[float]) -> float | None:
    return round(sum(numbers) / len(numbers), 4) if numbers else None
