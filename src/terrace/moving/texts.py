"""What an index makes of rows, made again where they arrive: words anew, vectors as they were."""

from collections.abc import Sequence
from typing import Protocol

from sqlmodel import Session

from terrace.moving.sides import Row, Side, Table
from terrace.moving.sums import Told
from terrace.storage import Database
from terrace.types import Scope

AT_ONCE = 5000  # chunks whose words are written in one transaction
# Made once over all rows it takes a hundredth of the time that it takes to put row after row in.
WORDS_INDEX = "ix_chunk_words_words"
MAKE_WORDS_INDEX = f"""SET LOCAL maintenance_work_mem = '256MB';
CREATE INDEX IF NOT EXISTS {WORDS_INDEX} ON chunk_words USING gin (words) WITH (fastupdate = off)"""
TENANTS = "SELECT tenant_id, count(*) FROM chunks GROUP BY tenant_id ORDER BY tenant_id"


class Words(Protocol):
    """What we need of an index."""

    def remove_document(self, session: Session, scope: Scope, document_id: str) -> None: ...

    def mend_text(self, session: Session, scope: Scope, limit: int, after: int = 0) -> int: ...


class Texts:
    """Of the database that rows arrive in."""

    def __init__(self, side: Side, index: Words) -> None:
        self._side = side
        self._index = index

    def forget(self, session: Session, documents: Sequence[tuple[str, str]]) -> None:
        """`documents`: (tenant, id) each. Their vectors go too, and come again with their rows."""
        for tenant, document in documents:
            self._index.remove_document(session, Scope(tenant), document)

    def arrived(self, session: Session, table: Table, rows: Sequence[Row]) -> None:
        """PostgreSQL keeps which spaces there are beside the vectors."""
        if table.name != "chunk_vectors" or self._side.dialect != "postgresql":
            return
        names = [each.name for each in table.columns]
        tenant, model, vector = (names.index(each) for each in ("tenant_id", "model", "vector"))
        for space in {(row[tenant], row[model], len(row[vector]) // 2) for row in rows}:
            self._side.run(
                "INSERT INTO vector_spaces (tenant_id, model, dimensions) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                space,
            )

    def write(self, told: Told) -> None:
        """The words of all chunks that have none yet."""
        if self._side.dialect == "postgresql":
            with self._side.writing():
                self._side.run("ANALYZE chunks")  # else a piece of them is looked for among all
                if not self._side.run("SELECT 1 FROM chunk_words LIMIT 1"):
                    self._side.run(f"DROP INDEX IF EXISTS {WORDS_INDEX}")
        self._write(told)
        if self._side.dialect == "postgresql":
            told("index of words", 0, 1)
            with self._side.writing():
                self._side.run(MAKE_WORDS_INDEX)
            told("index of words", 1, 1)

    def _write(self, told: Told) -> None:
        tenants = self._side.run(TENANTS)
        total, done = sum(count for _, count in tenants), 0
        for tenant, count in tenants:
            after, at = 0, done
            done += count
            while after := self._give_words(Scope(tenant), after):
                told("words of chunks", at := min(at + AT_ONCE, done), total)

    def _give_words(self, scope: Scope, after: int) -> int:
        """To some chunks after the number `after`; the last one's, 0 where there was none."""
        with self._side.writing() as session:
            return self._index.mend_text(session, scope, AT_ONCE, after)


class NoTexts(Texts):
    """Where rows alone are kept, and nobody searches."""

    def __init__(self) -> None:
        return None

    def forget(self, session: Session, documents: Sequence[tuple[str, str]]) -> None:
        return None

    def arrived(self, session: Session, table: Table, rows: Sequence[Row]) -> None:
        return None

    def write(self, told: Told) -> None:
        return None


async def tended(database: Database, told: Told, tenant: str = "") -> None:
    """What PostgreSQL's index would do beside its first searches, of one tenant or of all: graphs of large spaces, and
    counts of words."""
    if database.dialect != "postgresql":
        return
    from terrace.knowledge.index.postgres import counts, graphs

    tenants = [tenant]
    if not tenant:
        tenants = await database.read(lambda session: list(session.connection().exec_driver_sql(TENANTS).scalars()))
    for done, tenant in enumerate(tenants, 1):
        told("graphs of vectors", done - 1, len(tenants))
        await database.write(counts.fold, Scope(tenant))
        await database.write(graphs.tend, Scope(tenant))
        told("graphs of vectors", done, len(tenants))
