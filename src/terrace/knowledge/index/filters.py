"""A filter becomes the documents it allows."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select
from sqlmodel import Session, col

from terrace.knowledge.base import Filter
from terrace.knowledge.naming import key
from terrace.knowledge.tables import CollectionRow, DocumentRow, TagRow
from terrace.types import Scope


def allowed_documents(session: Session, scope: Scope, filter: Filter) -> set[str] | None:
    """Ids of the tenant's documents that pass; None when everything does. Collections go by id or by name;
    case counts neither in names nor in tags."""
    if filter == Filter():
        return None
    found = select(col(DocumentRow.id)).where(*passing(scope, filter))
    return set(session.connection().execute(found).scalars())  # as entities thousands of ids would take twice as long


def passing(scope: Scope, filter: Filter) -> list[ColumnElement[bool]]:
    """Conditions of the tenant's documents that pass."""
    conditions: list[ColumnElement[bool]] = [col(DocumentRow.tenant_id) == scope.tenant]
    if filter.documents:
        conditions.append(col(DocumentRow.id).in_(filter.documents))
    if filter.collections:
        named = select(col(CollectionRow.id)).where(*called(scope, filter.collections))
        conditions.append(col(DocumentRow.collection_id).in_(named))
    if filter.tags:
        tagged = select(TagRow.document_id).where(  # type: ignore[call-overload]
            TagRow.tenant_id == scope.tenant,
            TagRow.tag.in_([key(tag) for tag in filter.tags]),  # type: ignore[attr-defined]
        )
        conditions.append(col(DocumentRow.id).in_(tagged))
    return conditions


def called(scope: Scope, collections: Sequence[str]) -> tuple[ColumnElement[bool], ...]:
    """Conditions of the tenant's collections that go by one of these ids or names."""
    keys = [key(name) for name in collections]
    return (
        col(CollectionRow.tenant_id) == scope.tenant,
        col(CollectionRow.id).in_(collections) | col(CollectionRow.name_key).in_(keys),
    )
