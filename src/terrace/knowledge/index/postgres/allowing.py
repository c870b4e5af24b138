"""The documents that a filter lets through. Their ids stay as PostgreSQL wrote them: to unpack thousands, and to pack
them again for each statement, takes milliseconds."""

from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.knowledge.base import Filter
from terrace.knowledge.naming import key
from terrace.types import Scope

_COLLECTIONS = "SELECT id FROM collections WHERE tenant_id = %s AND (id = ANY(%s) OR name_key = ANY(%s))"
_TAGGED = "SELECT document_id FROM document_tags WHERE tenant_id = %s AND tag = ANY(%s)"


class Allowed(NamedTuple):
    documents: str  # their ids, as an array is written
    passages: int  # that they have together


NOTHING = Allowed("{}", 0)


def allowed(session: Session, scope: Scope, filter: Filter) -> Allowed | None:
    """None when everything is."""
    if filter == Filter():
        return None
    conditions, parameters = ["tenant_id = %s"], [scope.tenant]
    for condition, taken in _conditions(scope, filter):
        conditions.append(condition)
        parameters += taken
    found = session.connection().exec_driver_sql(
        "SELECT array_agg(id)::text, coalesce(sum(chunk_count), 0)::bigint FROM documents "
        f"WHERE {' AND '.join(conditions)}",
        tuple(parameters),
    ).one()  # fmt: skip
    return Allowed(*found) if found[0] else NOTHING


def _conditions(scope: Scope, filter: Filter) -> list[tuple[str, list[Any]]]:
    """As `terrace.knowledge.index.filters` has them, which SQLAlchemy would take a millisecond to put together."""
    documents, collections, tags = list(filter.documents), list(filter.collections), [key(tag) for tag in filter.tags]
    names = [name.casefold() for name in collections]
    wanted = (
        (documents, "id = ANY(%s)", [documents]),
        (collections, f"collection_id IN ({_COLLECTIONS})", [scope.tenant, collections, names]),
        (tags, f"id IN ({_TAGGED})", [scope.tenant, tags]),
    )
    return [(condition, taken) for asked, condition, taken in wanted if asked]
