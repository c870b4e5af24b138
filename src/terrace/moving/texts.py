"""What an index makes of rows, made again where they arrive: words anew, vectors as they were."""

from collections.abc import Sequence
from typing import Protocol

from sqlmodel import Session

from terrace.moving.sides import Row, Side, Table
from terrace.moving.sums import Told
from terrace.types import Scope

AT_ONCE = 5000  # chunks whose words are written in one transaction


class Words(Protocol):
    """What we need of an index."""

    def remove_document(self, session: Session, scope: Scope, document_id: str) -> None: ...

    def mend_text(self, session: Session, scope: Scope, limit: int) -> int: ...


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
        tenants = self._side.run("SELECT tenant_id, count(*) FROM chunks GROUP BY tenant_id ORDER BY tenant_id")
        total, done = sum(count for _, count in tenants), 0
        for tenant, _ in tenants:
            written = AT_ONCE
            while written == AT_ONCE:
                with self._side.writing() as session:
                    written = self._index.mend_text(session, Scope(tenant), AT_ONCE)
                told("words of chunks", min(done := done + written, total), total)
