"""Which spaces have a graph: made for those that grew large, dropped with those that shrank or went.

Made and dropped without holding up a writer (CONCURRENTLY), and so in no transaction. What a process that was killed
left half-made is dropped and made again.
"""

import logging
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.storage.database import as_owner, driver_of, own_locks
from terrace.types import Scope

log = logging.getLogger(__name__)

FROM = 10_000  # vectors; fewer are looked through as quickly
KEPT = 4  # times fewer, and a graph is dropped again
WIDEST = 4000  # pgvector makes no graph over more dimensions
LINKS, BREADTH = 16, 100  # m, ef_construction: more cost the build dearly and find little more
MB = 1024**2
MEMORY = (64 * MB, 2048 * MB)  # for building: a graph that does not fit is built many times slower
PER_VECTOR = 1000  # bytes of a graph while it is made, beside the vector: 830, and some room


class _Space(NamedTuple):
    model: str
    dimensions: int
    name: str
    vectors: int
    state: str  # "", "made", "half"


def graph_name(tenant: str, model: str, dimensions: int) -> str:
    return "graph_" + blake2b(f"{tenant}\0{model}\0{dimensions}".encode(), digest_size=12).hexdigest()


@own_locks
@as_owner
def tend(session: Session, scope: Scope, least: int = FROM) -> list[str]:
    """Make and drop what the tenant's spaces need now, of at least so many vectors; what was done.

    The transaction it is called in ends here.
    """
    there, spaces = _graphs(session), _spaces(session, scope)
    strangers = there - _named(session)
    gone = [
        each.name for each in spaces if each.state == "half" or (each.state == "made" and each.vectors < least // KEPT)
    ]
    wanted = [each for each in spaces if each.vectors >= least and each.state != "made" and each.dimensions <= WIDEST]
    _forget_empty(session, scope)
    if not (strangers or gone or wanted):
        return []
    driver = driver_of(session)
    driver.execute("COMMIT")
    dropped = [_drop(driver, name) for name in sorted(strangers | set(gone))]
    return dropped + [_make(driver, scope, each) for each in wanted]


def _drop(driver: Any, name: str) -> str:
    driver.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    return f"dropped {name}"


def _make(driver: Any, scope: Scope, space: _Space) -> str:
    low, high = MEMORY
    memory = min(high, max(low, space.vectors * (2 * space.dimensions + PER_VECTOR)))
    log.info("making a graph of %s vectors of %s", f"{space.vectors:,}", space.model)
    driver.execute(f"SET maintenance_work_mem = '{memory // 1024}kB'")
    try:
        driver.execute(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {space.name} ON chunk_vectors "
            f"USING hnsw ((vector::halfvec({space.dimensions})) halfvec_ip_ops) "
            f"WITH (m = {LINKS}, ef_construction = {BREADTH}) WHERE tenant_id = {_quoted(scope.tenant)} "
            f"AND model = {_quoted(space.model)} AND vector_dims(vector) = {space.dimensions}"
        )
    finally:
        driver.execute("RESET maintenance_work_mem")
    return f"made {space.name}"


def _graphs(session: Session) -> set[str]:
    """Every graph there is."""
    found = session.connection().exec_driver_sql(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'chunk_vectors'::regclass AND c.relname ~ '^graph_'"
    )
    return set(found.scalars())


def _named(session: Session) -> set[str]:
    """Every graph there may be. Read after those there are: a space comes before its graph."""
    rows = session.connection().exec_driver_sql("SELECT tenant_id, model, dimensions FROM vector_spaces")
    return {graph_name(*row) for row in rows}


def _spaces(session: Session, scope: Scope) -> list[_Space]:
    run = session.connection().exec_driver_sql
    counts: dict[str, int] = dict(
        run("SELECT model, count(*) FROM chunk_vectors WHERE tenant_id = %s GROUP BY model", (scope.tenant,)).all()
    )
    found = []
    for model, dimensions in run("SELECT model, dimensions FROM vector_spaces WHERE tenant_id = %s", (scope.tenant,)):
        name = graph_name(scope.tenant, model, dimensions)
        found.append(_Space(model, dimensions, name, counts.get(model, 0), _state(session, name)))
    return found


def _state(session: Session, name: str) -> str:
    """What somebody is at work on counts as made."""
    found = session.connection().exec_driver_sql(
        "SELECT indisvalid OR EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) "
        "FROM pg_index i WHERE indexrelid = to_regclass(%s)",
        (name,),
    ).scalar()  # fmt: skip
    return "" if found is None else "made" if found else "half"


def _forget_empty(session: Session, scope: Scope) -> None:
    session.connection().exec_driver_sql(
        "DELETE FROM vector_spaces s WHERE tenant_id = %s AND NOT EXISTS "
        "(SELECT FROM chunk_vectors v WHERE v.tenant_id = s.tenant_id AND v.model = s.model)",
        (scope.tenant,),
    )


def _quoted(text: str) -> str:
    """A literal, as no parameter can stand in a definition."""
    return "'" + text.replace("'", "''") + "'"
