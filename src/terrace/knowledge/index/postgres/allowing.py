"""The documents that a filter lets through. Few of them are listed first. Their ids stay as PostgreSQL wrote them: to
unpack thousands, and to pack them again for each statement, takes milliseconds. Where most of what a tenant has passes,
each statement finds them out itself."""

from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.knowledge.base import Filter
from terrace.knowledge.index.postgres.asking import ask
from terrace.knowledge.naming import key
from terrace.types import Scope

MANY = 10_000  # passages

_COLLECTIONS = "SELECT id FROM collections WHERE tenant_id = %s AND (id = ANY(%s) OR name_key = ANY(%s))"
_TAGGED = "SELECT document_id FROM document_tags WHERE tenant_id = %s AND tag = ANY(%s)"


class Allowed(NamedTuple):
    within: str  # a condition of a row's `document_id`
    parameters: tuple[Any, ...]  # that it takes
    passages: int  # that pass, about


NOTHING = Allowed("false", (), 0)


def listed(documents: str, passages: int) -> Allowed:
    """`documents`: their ids, as an array is written."""
    return Allowed("document_id = ANY(%s::text[])", (documents,), passages)


def narrowed(among: Allowed | None) -> tuple[str, tuple[Any, ...]]:
    """What more is to hold of a row, and what that takes."""
    return ("", ()) if among is None else (f"AND {among.within}", among.parameters)


def broadly(scope: Scope, filter: Filter, passages: int) -> Allowed:
    conditions, parameters = _conditions(scope, filter)
    # As a truth value it is looked up row by row, and nothing else is done first because of it.
    return Allowed(f"(document_id IN (SELECT id FROM documents WHERE {conditions})) IS TRUE", parameters, passages)


def allowed(session: Session, scope: Scope, filter: Filter) -> tuple[Allowed, bool]:
    """And whether these are so many that it is sooner told of each whether it passes."""
    conditions, parameters = _conditions(scope, filter)
    [(documents, passages, all_passages)] = ask(
        session,
        "SELECT array_agg(id)::text, coalesce(sum(chunk_count), 0)::bigint, "
        "coalesce((SELECT chunks FROM word_totals WHERE tenant_id = %s), 0) "
        f"FROM documents WHERE {conditions}",
        (scope.tenant, *parameters),
    )
    broad = passages > MANY and 3 * passages > all_passages
    return listed(documents, passages) if documents else NOTHING, broad


def _conditions(scope: Scope, filter: Filter) -> tuple[str, tuple[Any, ...]]:
    """As `terrace.knowledge.index.filters` has them, which SQLAlchemy would take a millisecond to put together."""
    documents, collections, tags = list(filter.documents), list(filter.collections), [key(tag) for tag in filter.tags]
    names = [name.casefold() for name in collections]
    wanted: list[tuple[str, list[Any]]] = [("tenant_id = %s", [scope.tenant])]
    if documents:
        wanted.append(("id = ANY(%s)", [documents]))
    if collections:
        wanted.append((f"collection_id = ANY(ARRAY({_COLLECTIONS}))", [scope.tenant, collections, names]))
    if tags:
        wanted.append((f"id = ANY(ARRAY({_TAGGED}))", [scope.tenant, tags]))
    return " AND ".join(condition for condition, _ in wanted), tuple(each for _, taken in wanted for each in taken)
