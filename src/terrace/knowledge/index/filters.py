"""A filter becomes the documents it allows."""

from sqlalchemy import select
from sqlmodel import Session

from terrace.knowledge.base import Filter
from terrace.knowledge.naming import key, tidy
from terrace.knowledge.tables import CollectionRow, DocumentRow, TagRow
from terrace.types import Scope


def allowed_documents(session: Session, scope: Scope, filter: Filter) -> set[str] | None:
    """Ids of the tenant's documents that pass; None when everything does. Collections go by id or by name;
    case counts neither in names nor in tags."""
    if filter == Filter():
        return None
    query = select(DocumentRow.id).where(DocumentRow.tenant_id == scope.tenant)  # type: ignore[call-overload]
    if filter.documents:
        query = query.where(DocumentRow.id.in_(filter.documents))  # type: ignore[attr-defined]
    if filter.collections:
        query = query.where(DocumentRow.collection_id.in_(collection_ids(scope, filter)))  # type: ignore[attr-defined]
    if filter.tags:
        tagged = select(TagRow.document_id).where(  # type: ignore[call-overload]
            TagRow.tenant_id == scope.tenant,
            TagRow.tag.in_([key(tidy(tag)) for tag in filter.tags]),  # type: ignore[attr-defined]
        )
        query = query.where(DocumentRow.id.in_(tagged))  # type: ignore[attr-defined]
    return set(session.execute(query).scalars())


def collection_ids(scope: Scope, filter: Filter) -> object:
    """A query of the ids of the filter's collections."""
    keys = [name.casefold() for name in filter.collections]
    return select(CollectionRow.id).where(  # type: ignore[call-overload]
        CollectionRow.tenant_id == scope.tenant,
        CollectionRow.id.in_(filter.collections) | CollectionRow.name_key.in_(keys),  # type: ignore[attr-defined]
    )
