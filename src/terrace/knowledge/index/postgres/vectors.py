"""Vectors on PostgreSQL: pgvector's half-precision vectors in the rows, and a graph over those of a large space.

A space is what one tenant has of one model. Each large space has a graph (HNSW: Malkov & Yashunin, 2018) of its own,
so that another tenant's vectors are never in the way of a search. Where a filter leaves too few of them for the graph
to come upon, or there is none, all that pass are looked through: by the signs of their numbers, as on SQLite, which
triggers keep beside the vectors, those of a document together. The vectors whose signs are most like the question's
are then compared themselves. Up to some thousand are compared at once.
"""

from collections.abc import Sequence
from functools import cache
from math import ceil
from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.errors import Invalid
from terrace.knowledge.index.postgres import counts
from terrace.knowledge.index.postgres.allowing import Allowed, narrowed
from terrace.knowledge.index.postgres.asking import array, ask
from terrace.knowledge.index.postgres.graphs import graph_name
from terrace.knowledge.index.postgres.signs import KeptSigns, likest
from terrace.types import Scope

CANDIDATES = 100
BREADTH = 120  # that the graph looks at; recall@10 is 0.99 with so many, up to
LARGE = 100_000  # vectors; of more, more have to be looked at
GROWTH = 0.7  # this power of how many times more
PASSING = 35  # are to pass a filter among those that the graph brings; recall@10 is 0.99 again
LIKELY = 0.7  # of what is to pass on average does nearly always
BROADEST = 1000  # that pgvector takes for hnsw.ef_search
WORTH = 120  # vectors' signs are looked through in the time that the graph brings one
FEW, MANY = 2_000, 200_000  # vectors: fewer are sooner compared than their signs, of more the signs take much memory
ALIKE = 150  # that have the likest signs are compared
FURTHER = 220  # of so many that pass a filter, one is brought by walking on, where few of the nearest do
HEADER = 4  # bytes before the numbers of a vector as PostgreSQL sends it, big-endian


Cosines = dict[int, float]  # by the chunk's number


class Space(NamedTuple):
    graph: bool  # whether there is one that can be searched
    chunks: int  # of the tenant


def space(session: Session, scope: Scope, model: str, width: int) -> Space | None:
    """None where there is none, or one of another width: a provider may have changed what a name means."""
    row = session.connection().exec_driver_sql(
        "SELECT coalesce(i.indisvalid, false), totals.chunks "
        f"FROM vector_spaces s CROSS JOIN ({counts.TOTALS}) AS totals(chunks, tokens) "
        "LEFT JOIN pg_index i ON i.indexrelid = to_regclass(%s) "
        "WHERE s.tenant_id = %s AND s.model = %s AND s.dimensions = %s",
        (scope.tenant, scope.tenant, graph_name(scope.tenant, model, width), scope.tenant, model, width),
    ).first()  # fmt: skip
    return Space(*row) if row else None


def add(session: Session, scope: Scope, model: str, chunk_ids: Sequence[str], vectors: Any) -> None:
    """Replaces what these chunks had under `model`; chunks deleted meanwhile are passed over.

    Raises Invalid when the width differs from what is stored under the same name.
    """
    import numpy as np

    vectors = np.asarray(vectors, "<f2")
    if vectors.ndim != 2 or len(vectors) != len(chunk_ids):
        raise Invalid(f"{len(chunk_ids)} chunks need as many vectors, not an array of shape {vectors.shape}.")
    _check_width(session, scope, model, vectors.shape[1])
    run = session.connection().exec_driver_sql
    found = run(
        "SELECT id, number, document_id FROM chunks WHERE tenant_id = %s AND id = ANY(%s)",
        (scope.tenant, list(chunk_ids)),
    )
    places = {chunk_id: place for place, chunk_id in enumerate(chunk_ids)}
    rows = [(number, document_id, text_of(vectors[places[chunk_id]])) for chunk_id, number, document_id in found]
    if rows:
        numbers, documents, texts = (list(column) for column in zip(*rows, strict=True))
        run(
            "DELETE FROM chunk_vectors WHERE tenant_id = %s AND model = %s AND number = ANY(%s)",
            (scope.tenant, model, numbers),
        )
        run(
            "INSERT INTO chunk_vectors (tenant_id, model, number, document_id, vector) "
            "SELECT %s, %s, number, document_id, vector::halfvec "
            "FROM unnest(%s::bigint[], %s::text[], string_to_array(%s, ' ')) AS each(number, document_id, vector)",
            (scope.tenant, model, numbers, documents, " ".join(texts)),
        )


def remove(session: Session, scope: Scope, document_id: str) -> int:
    """How many there were."""
    gone = session.connection().exec_driver_sql(
        "DELETE FROM chunk_vectors WHERE tenant_id = %s AND document_id = %s", (scope.tenant, document_id)
    )
    return gone.rowcount


def known(session: Session, scope: Scope, model: str, hashes: Sequence[str]) -> dict[str, Any]:
    """float32 vectors by `text_sha256`."""
    import numpy as np

    rows = session.connection().exec_driver_sql(
        "SELECT c.text_sha256, halfvec_send(v.vector) FROM chunks c "
        "JOIN chunk_vectors v ON v.tenant_id = c.tenant_id AND v.model = %s AND v.number = c.number "
        "WHERE c.tenant_id = %s AND c.text_sha256 = ANY(%s)",
        (model, scope.tenant, list(hashes)),
    )
    return {key: np.frombuffer(sent, ">f2", offset=HEADER).astype(np.float32) for key, sent in rows}


def nearest(
    session: Session,
    scope: Scope,
    model: str,
    query: Any,
    count: int,
    known: Space,
    kept: KeptSigns,
    among: Allowed | None = None,
) -> Cosines:
    """The nearest of a `known` space, `count` at least where there are so many."""
    breadth, most = _breadth(known, count, among), max(count, CANDIDATES)
    if breadth:
        found = _by_graph(session, scope, model, query, most, breadth, known, among)
        if among is None or len(found) >= count:
            return found
    if FEW < (known.chunks if among is None else among.passages) <= MANY:
        return _by_signs(session, scope, model, query, most, among, kept)
    return _looked_through(session, scope, model, query, most, among)


def cosines(session: Session, scope: Scope, model: str, query: Any, numbers: Sequence[int]) -> Cosines:
    """Of those that have a vector of the query's width."""
    if not numbers:
        return {}
    rows = ask(
        session,
        "SELECT number, -(vector <#> %s::halfvec) FROM chunk_vectors "
        f"WHERE tenant_id = %s AND model = %s AND number = ANY(%s::bigint[]) AND vector_dims(vector) = {len(query)}",
        (text_of(query), scope.tenant, model, array(numbers)),
    )
    return dict(rows)


def nearest_of_all(session: Session, scope: Scope, model: str, query: Any, count: int) -> Cosines:
    """Every vector of the query's width is looked at."""
    return _looked_through(session, scope, model, query, count, None)


def _breadth(known: Space, count: int, among: Allowed | None) -> int:
    """How many the graph is to look at so that enough of them pass; 0 where all that pass are sooner looked through."""
    if not known.graph:
        return 0
    least = int(BREADTH * max(1.0, known.chunks / LARGE) ** GROWTH)
    if among is None:
        return min(max(count, least), BROADEST)
    if among.passages <= WORTH * least:
        return 0
    wanted = max(PASSING, count / LIKELY)
    breadth = max(least, ceil(wanted * known.chunks / among.passages))
    return 0 if breadth > BROADEST or among.passages <= WORTH * breadth else breadth


def _by_graph(
    session: Session,
    scope: Scope,
    model: str,
    query: Any,
    most: int,
    breadth: int,
    known: Space,
    among: Allowed | None,
) -> Cosines:
    """With a filter maybe fewer than are wanted: where the question is about something else than what passes."""
    # Only this very expression is what the graph is over.
    vector, iterative = f"vector::halfvec({len(query)})", "off" if among is None else "relaxed_order"
    settings = (
        f"SET LOCAL enable_sort = off; SET LOCAL hnsw.ef_search = {breadth}; "
        f"SET LOCAL hnsw.iterative_scan = {iterative}; SET LOCAL hnsw.max_scan_tuples = 100000"
    )
    if among is None:
        return _cosines(session, *_ordered(scope, model, query, most, vector), settings)
    brought, parameters = _ordered(scope, model, query, max(breadth, among.passages // FURTHER), vector)
    likely = min(most, ceil(LIKELY * breadth * among.passages / max(known.chunks, among.passages)))
    return _cosines(
        session,
        f"SELECT number, distance FROM ({brought}) brought WHERE {among.passes[0]} LIMIT {likely}",
        (*parameters, *among.passes[1]),
        settings,
    )


def _by_signs(
    session: Session, scope: Scope, model: str, query: Any, count: int, among: Allowed | None, kept: KeptSigns
) -> Cosines:
    alike = likest(session, scope, model, query, max(count, ALIKE), among, kept)
    found = cosines(session, scope, model, query, alike)
    return {number: found[number] for number in sorted(found, key=found.__getitem__, reverse=True)[:count]}


def _looked_through(
    session: Session, scope: Scope, model: str, query: Any, count: int, among: Allowed | None
) -> Cosines:
    return _cosines(session, *_ordered(scope, model, query, count, "vector", among))


def _ordered(
    scope: Scope, model: str, query: Any, count: int, vector: str, among: Allowed | None = None
) -> tuple[str, tuple[Any, ...]]:
    """A query, and what it takes. The distance has a name, else it would be computed again for what is shown of it."""
    condition, parameters = narrowed(among)
    return (
        f"SELECT number, document_id, {vector} <#> %s::halfvec AS distance FROM chunk_vectors "
        f"WHERE tenant_id = %s AND model = %s AND vector_dims(vector) = {len(query)} {condition} "
        f"ORDER BY distance LIMIT {count}",
        (text_of(query), scope.tenant, model, *parameters),
    )


def _cosines(session: Session, near: str, parameters: tuple[Any, ...], settings: str = "") -> Cosines:
    return dict(ask(session, f"SELECT number, -distance FROM ({near}) near", parameters, settings))


def after(session: Session, scope: Scope, model: str, place: int, limit: int) -> tuple[int, list[str], Any]:
    """Of the width of the first one: what is odd is told elsewhere."""
    import numpy as np

    rows = session.connection().exec_driver_sql(
        "SELECT id, document_id, halfvec_send(vector) FROM chunk_vectors WHERE tenant_id = %s AND model = %s "
        "AND id > %s ORDER BY id LIMIT %s",
        (scope.tenant, model, place, limit),
    ).all()  # fmt: skip
    if not rows:
        return place, [], np.zeros((0, 0), np.float16)
    alike = [row for row in rows if len(row[2]) == len(rows[0][2])]
    sent = b"".join(row[2][HEADER:] for row in alike)
    return rows[-1][0], [row[1] for row in alike], np.frombuffer(sent, ">f2").astype("<f2").reshape(len(alike), -1)


def count(session: Session, scope: Scope) -> int:
    found = session.connection().exec_driver_sql(
        "SELECT count(*) FROM chunk_vectors WHERE tenant_id = %s", (scope.tenant,)
    )
    return int(found.scalar_one())


def text_of(vector: Any) -> str:
    """As pgvector reads it, to the precision of halves."""
    texts = _texts()
    return "[" + ",".join([texts[half] for half in vector.astype("<f2", copy=False).view("<u2").tolist()]) + "]"


@cache
def _texts() -> list[str]:
    """Each of the 65,536 halves there are: five digits tell them apart."""
    import numpy as np

    return [f"{each:.5g}" for each in np.arange(65_536, dtype="<u2").view("<f2").tolist()]


def _check_width(session: Session, scope: Scope, model: str, width: int) -> None:
    """One row says it for the whole space, so that writers of one space read nothing that the others write."""
    run = session.connection().exec_driver_sql
    key = (scope.tenant, model)
    known = run("SELECT dimensions FROM vector_spaces WHERE tenant_id = %s AND model = %s", key).scalar()
    if known == width:
        return
    if known is not None:
        there = run("SELECT FROM chunk_vectors WHERE tenant_id = %s AND model = %s LIMIT 1", key).first()
        if there is not None:
            raise Invalid(f"Vectors of {model} have {known} dimensions here, not {width}.", code="vector_dimensions")
    run(
        "INSERT INTO vector_spaces (tenant_id, model, dimensions) VALUES (%s, %s, %s) "
        "ON CONFLICT (tenant_id, model) DO UPDATE SET dimensions = excluded.dimensions",
        (*key, width),
    )
