"""The signs of the vectors among which somebody searches, put together once for those who search there again. A row of
`vector_signs` holds those of one document."""

from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.knowledge.base import Filter
from terrace.knowledge.index.postgres.allowing import Allowed, narrowed, state
from terrace.knowledge.index.postgres.kept import Kept
from terrace.storage.database import driver_of
from terrace.types import Scope

MOST_BYTES = 32 * 1024 * 1024  # 600,000 vectors of 384 dimensions


class Signs(NamedTuple):
    numbers: Any  # int64 (rows,): of the chunks
    columns: Any  # uint64 (words, rows), as `terrace.knowledge.index.bits` has them

    @property
    def bytes(self) -> int:
        return int(self.numbers.nbytes + self.columns.nbytes)


KeptSigns = Kept[tuple[str, str, int, tuple[Filter, str]], Signs]  # of a tenant, model and width; of what, when


def likest(
    session: Session, scope: Scope, model: str, query: Any, count: int, among: Allowed | None, kept: KeptSigns
) -> list[int]:
    """Numbers of the chunks whose vectors have signs most like the query's, unordered. What a document that is being
    read got since its text was there may be missing until it is ready."""
    from terrace.knowledge.index import bits

    of = (Filter(), state(session, scope, Filter())) if among is None else among.of
    key = of and (scope.tenant, model, len(query), of)
    signs = key and kept.get(key)
    if not signs:
        signs = _read(session, scope, model, len(query), among)
        if key:
            kept.keep(key, signs)
    if not len(signs.numbers):  # what passes is not embedded yet
        return []
    found: list[int] = signs.numbers[bits.likest(signs.columns, query, count)].tolist()
    return found


def _read(session: Session, scope: Scope, model: str, dimensions: int, among: Allowed | None) -> Signs:
    import numpy as np

    from terrace.knowledge.index.bits import columns

    condition, parameters = narrowed(among)
    with driver_of(session).cursor(binary=True) as cursor:
        rows = cursor.execute(
            f"SELECT numbers, signs FROM vector_signs WHERE tenant_id = %s AND model = %s "
            f"AND dimensions = {dimensions} {condition}",
            (scope.tenant, model, *parameters),
        ).fetchall()
    numbers = np.frombuffer(b"".join([row[0] for row in rows]), ">i8").astype(np.int64)
    return Signs(numbers, columns(b"".join([row[1] for row in rows]), len(numbers), dimensions))
