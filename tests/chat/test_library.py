"""The product's retriever: which documents there are, and on which page a passage's words stand."""

from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from terrace.chat.library import Library
from terrace.knowledge.base import Filter, Hit, Page, Span
from terrace.knowledge.tables import CollectionRow, DocumentRow, PageRow
from terrace.storage import Database
from terrace.types import Scope


@dataclass
class Result:
    hits: list[Hit] = field(default_factory=list)


class Empty:
    async def search(self, scope: Scope, query: str, *, k: int, filter: Filter) -> Result:
        return Result()


def hit(start: int, end: int) -> Hit:
    return Hit("chk_1", "doc_1", "a", "a", "default", "x" * (end - start), 1.0, None, None, 1, (), start, end, "")


def shelve(session: Session, scope: Scope) -> None:
    session.add(CollectionRow(id="col_1", tenant_id=scope.tenant, name="c", name_key="c", created_at=0))
    session.flush()
    values: dict[str, Any] = {
        "name": "a", "name_key": "a", "media_type": "text/plain", "bytes": 1, "sha256": "0", "blob": "b",
        "created_at": 0, "updated_at": 0,
    }  # fmt: skip
    session.add(DocumentRow(id="doc_1", tenant_id=scope.tenant, collection_id="col_1", **values))
    session.flush()
    for number in range(1, 6):
        span = {"start_char": number * 100, "end_char": number * 100 + 99}
        session.add(PageRow(document_id="doc_1", number=number, tenant_id=scope.tenant, **span))


async def test_it_knows_whether_there_are_documents(database: Database, scope: Scope, other: Scope) -> None:
    library = Library(database, Empty())
    assert not await library.has_documents(scope)
    await database.write(shelve, scope)
    assert await library.has_documents(scope)
    assert not await library.has_documents(other)


async def test_only_the_pages_a_passage_touches_are_read(database: Database, scope: Scope, other: Scope) -> None:
    library = Library(database, Empty())
    await database.write(shelve, scope)
    found = await library.pages(scope, [hit(250, 350)])
    assert found == {"doc_1": [Page(2, Span(200, 299)), Page(3, Span(300, 399))]}
    assert await library.pages(other, [hit(250, 350)]) == {"doc_1": []}
    assert await library.pages(scope, []) == {}
