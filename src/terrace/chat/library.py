"""Documents as chat needs them, from what the knowledge room offers."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy import and_, false, or_
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

    async def pages(self, scope: Scope, hits: Sequence[Hit]) -> Mapping[str, Sequence[Page]]:
        return await self._database.read(_pages, scope, hits)


def _any(session: Session, scope: Scope) -> bool:
    return (
        session.exec(select(DocumentRow.id).where(DocumentRow.tenant_id == scope.tenant).limit(1)).first() is not None
    )


def _pages(session: Session, scope: Scope, hits: Sequence[Hit]) -> dict[str, list[Page]]:
    found: dict[str, list[Page]] = {hit.document_id: [] for hit in hits}
    touched = (
        and_(
            col(PageRow.document_id) == hit.document_id,
            col(PageRow.start_char) < hit.end,
            col(PageRow.end_char) > hit.start,
        )
        for hit in hits
    )
    rows = session.exec(select(PageRow).where(PageRow.tenant_id == scope.tenant, or_(false(), *touched)))
    for row in rows:
        found[row.document_id].append(Page(row.number, Span(row.start_char, row.end_char)))
    return found
