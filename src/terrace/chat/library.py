"""Documents as chat needs them, from what the knowledge room offers."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlmodel import Session, col, select

from terrace.knowledge.base import Filter, Hit, Page, Span
from terrace.knowledge.tables import DocumentRow, PageRow
from terrace.storage import Database
from terrace.types import Scope


class Found(Protocol):
    @property
    def hits(self) -> Sequence[Hit]: ...


class Searches(Protocol):
    async def search(self, scope: Scope, query: str, *, k: int, filter: Filter) -> Found: ...


class Library:
    """The `Retriever` of the product."""

    def __init__(self, database: Database, search: Searches) -> None:
        self._database = database
        self._search = search

    async def has_documents(self, scope: Scope) -> bool:
        return await self._database.read(_any, scope)

    async def search(self, scope: Scope, query: str, *, k: int, filter: Filter) -> Sequence[Hit]:
        return (await self._search.search(scope, query, k=k, filter=filter)).hits

    async def pages(self, scope: Scope, documents: Sequence[str]) -> Mapping[str, Sequence[Page]]:
        return await self._database.read(_pages, scope, documents)


def _any(session: Session, scope: Scope) -> bool:
    return (
        session.exec(select(DocumentRow.id).where(DocumentRow.tenant_id == scope.tenant).limit(1)).first() is not None
    )


def _pages(session: Session, scope: Scope, documents: Sequence[str]) -> dict[str, list[Page]]:
    found: dict[str, list[Page]] = {document: [] for document in documents}
    order: Any = (col(PageRow.document_id), col(PageRow.number))
    rows = session.exec(
        select(PageRow)
        .where(PageRow.tenant_id == scope.tenant, col(PageRow.document_id).in_(documents))
        .order_by(*order)
    )
    for row in rows:
        found[row.document_id].append(Page(row.number, Span(row.start_char, row.end_char)))
    return found
