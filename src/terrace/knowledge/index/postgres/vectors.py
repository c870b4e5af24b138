"""Vectors on PostgreSQL: pgvector's half-precision vectors in the rows, and a graph over those of a large space.

A space is what one tenant has of one model. Each large space has a graph (HNSW: Malkov & Yashunin, 2018) of its own,
so that another tenant's vectors are never in the way of a search; a small one is quicker looked through.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.errors import Invalid
from terrace.knowledge.index.postgres import counts
from terrace.knowledge.index.postgres.allowing import Allowed
from terrace.knowledge.index.postgres.graphs import graph_name
from terrace.knowledge.index.tables import halves_text
from terrace.types import Scope

CANDIDATES = 100  # nearest by the graph; recall@10 is 0.99 with so many
FILTERED = 70  # and with a filter, among those that pass; recall@10 is 0.99 again
BROADEST = 1000  # that pgvector takes for hnsw.ef_search
# Looking through n of N rows costs as much as filtering what the graph brings where n * n is about EVEN * N.
EVEN = 2000
HEADER = 4  # bytes before the numbers of a vector as PostgreSQL sends it, big-endian
SETTINGS = "SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0"


class Space(NamedTuple):
    dimensions: int
    graph: bool  # whether there is one that can be searched


def space(session: Session, scope: Scope, model: str) -> Space | None:
    row = session.connection().exec_driver_sql(
        "SELECT dimensions FROM vector_spaces WHERE tenant_id = %s AND model = %s", (scope.tenant, model)
    ).first()  # fmt: skip
    if row is None:
        return None
    graph = session.connection().exec_driver_sql(
        "SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid",
        (graph_name(scope.tenant, model, row[0]),),
    )
    return Space(row[0], graph.first() is not None)


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
    rows = [(number, document_id, _text(vectors[places[chunk_id]])) for chunk_id, number, document_id in found]
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
    among: Allowed | None = None,
) -> dict[int, float]:
    """Cosines by chunk number: of the nearest, `count` at least where there are so many.

    A query of another width than the space's finds nothing: a provider may have changed what a name means.
    """
    known = space(session, scope, model)
    if known is None or known.dimensions != len(query):
        return {}
    count, breadth = _counts(session, scope, known, count, among)
    # Only this very expression is what the graph is over.
    vector = f"vector::halfvec({known.dimensions})" if breadth else "vector"
    if breadth:
        session.connection().exec_driver_sql(
            f"SET LOCAL hnsw.ef_search = {min(breadth, BROADEST)}; SET LOCAL hnsw.max_scan_tuples = 40000; "
            f"SET LOCAL hnsw.iterative_scan = {'off' if among is None else 'relaxed_order'}; "
            "SET LOCAL enable_sort = off"
        )
    condition, parameters = ("", ()) if among is None else ("AND document_id = ANY(%s::text[])", (among.documents,))
    return _ordered(session, scope, model, query, count, vector, condition, parameters)


def _counts(session: Session, scope: Scope, known: Space, count: int, among: Allowed | None) -> tuple[int, int]:
    """(how many are asked for, how many the graph looks at for them; 0 where all are looked through)"""
    if among is None or not known.graph:
        count = max(count, CANDIDATES)
        return count, count if known.graph else 0
    every = counts.chunks(session, scope)
    if among.passages**2 <= EVEN * every:
        return max(count, CANDIDATES), 0
    count = max(count, FILTERED)
    return count, count * every // among.passages  # so many that enough of them pass


def nearest_of_all(session: Session, scope: Scope, model: str, query: Any, count: int) -> dict[int, float]:
    """Cosines by chunk number of the `count` nearest: every vector of the query's width is looked at."""
    return _ordered(session, scope, model, query, count, "vector")


def _ordered(
    session: Session,
    scope: Scope,
    model: str,
    query: Any,
    count: int,
    vector: str,
    condition: str = "",
    parameters: tuple[Any, ...] = (),
) -> dict[int, float]:
    rows = session.connection().exec_driver_sql(
        f"SELECT number, -({vector} <#> %s::halfvec) FROM chunk_vectors "
        f"WHERE tenant_id = %s AND model = %s AND vector_dims(vector) = {len(query)} {condition} "
        f"ORDER BY {vector} <#> %s::halfvec LIMIT {count}",
        (text := halves_text(query), scope.tenant, model, *parameters, text),
    )
    return dict(rows.all())


def cosines(session: Session, scope: Scope, model: str, query: Any, numbers: Sequence[int]) -> dict[int, float]:
    """Of these chunks, where they have a vector of the query's width."""
    if not numbers:
        return {}
    rows = session.connection().exec_driver_sql(
        "SELECT number, -(vector <#> %s::halfvec) FROM (SELECT number, vector FROM chunk_vectors WHERE tenant_id = %s "
        f"AND model = %s AND number = ANY(%s) AND vector_dims(vector) = {len(query)} OFFSET 0) v",
        (halves_text(query), scope.tenant, model, list(numbers)),
    )
    return dict(rows.all())


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


def _text(vector: Any) -> str:
    """Of little-endian halves, as pgvector reads them."""
    texts = _texts()
    return "[" + ",".join([texts[half] for half in vector.view("<u2").tolist()]) + "]"


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
