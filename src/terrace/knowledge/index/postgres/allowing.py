"""The documents that a filter lets through. Few of them are listed. Their ids stay as PostgreSQL wrote them: to unpack
thousands, and to pack them again for each statement, takes milliseconds.

Where most of what a tenant has passes, each row is told whether its document does. By a list again, where the same is
asked for a second time and nothing has changed: of those that pass or of the others, whichever is shorter. Else each
statement finds out itself.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.knowledge.base import Filter
from terrace.knowledge.index.postgres.asking import ask
from terrace.knowledge.index.postgres.kept import Kept
from terrace.knowledge.naming import key
from terrace.types import Scope

MANY = 10_000  # passages
BROAD_SECONDS = 60.0  # that a filter is taken for one that lets most of them through
LISTABLE = 200_000  # passages: to list the documents of more takes longer than it saves
LONGEST = 128 * 1024  # bytes of a list that rows are told by: some 4,000 documents
MOST_BYTES = 8 * 1024 * 1024  # of what is kept

_TAGGED = "SELECT document_id FROM document_tags WHERE tenant_id = %s AND tag = ANY(%s)"


class Allowed(NamedTuple):
    within: str  # a condition of a row's `document_id`
    parameters: tuple[Any, ...]  # that it takes
    passages: int  # that pass, about
    of: tuple[Filter, str] | None = None  # what was asked for, and in which state, where that is known
    unlisted: bool = False  # though they could be, should the same be asked for again

    @property
    def bytes(self) -> int:
        return sum(len(each) for each in self.parameters)


NOTHING = "false"


class Passing:
    """What filters let through, kept for as long as nothing changes. For any thread."""

    def __init__(self) -> None:
        self._kept: Kept[tuple[str, tuple[Filter, str]], Allowed] = Kept(MOST_BYTES)
        self._broad: Kept[tuple[str, Filter], Allowed] = Kept(MOST_BYTES, BROAD_SECONDS)

    def of(self, session: Session, scope: Scope, filter: Filter, state_: str = "") -> Allowed | None:
        """None: whatever there is. `state_`: what `state` says, where somebody has asked already."""
        if filter == Filter():
            return None
        of = filter, state_ or state(session, scope, filter)
        known = self._kept.get((scope.tenant, of))
        if known is not None and not known.unlisted:
            return known
        find = self._looked_up if known is None else told
        found = find(session, scope, filter)._replace(of=of)
        self._kept.keep((scope.tenant, of), found)
        return found

    def _looked_up(self, session: Session, scope: Scope, filter: Filter) -> Allowed:
        broad = self._broad.get((scope.tenant, filter))
        if broad is not None:
            return broad
        found, is_broad = allowed(session, scope, filter)
        if is_broad:
            found = broadly(scope, filter, found.passages)
            self._broad.keep((scope.tenant, filter), found)
        return found


def state(session: Session, scope: Scope, filter: Filter) -> str:
    """Another one after each change of what a search may find (`terrace.knowledge.store.changed`)."""
    [(found,)] = ask(session, *asking_state(scope, filter))
    return str(found)


def asking_state(scope: Scope, filter: Filter) -> tuple[str, tuple[Any, ...]]:
    """What has to be asked: one text."""
    named, parameters = _named(filter.collections) if filter.collections else ("true", ())
    return (
        "SELECT coalesce(sum(hashtextextended(id || ' ' || name_key, version)), 0)::text FROM collections "
        f"WHERE tenant_id = %s AND {named}",
        (scope.tenant, *parameters),
    )


def listed(documents: str, passages: int) -> Allowed:
    """`documents`: their ids, as an array is written."""
    return Allowed("document_id = ANY(%s::text[])", (documents,), passages)


def narrowed(among: Allowed | None) -> tuple[str, tuple[Any, ...]]:
    """What more is to hold of a row, and what that takes."""
    return ("", ()) if among is None else (f"AND {among.within}", among.parameters)


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
    return listed(documents, passages) if documents else Allowed(NOTHING, (), 0), broad


# As a truth value a condition is looked up row by row, and nothing else is done first because of it.


def broadly(scope: Scope, filter: Filter, passages: int) -> Allowed:
    conditions, parameters = _conditions(scope, filter)
    among = f"(document_id IN (SELECT id FROM documents WHERE {conditions})) IS TRUE"
    return Allowed(among, parameters, passages, unlisted=passages <= LISTABLE)


def told(session: Session, scope: Scope, filter: Filter) -> Allowed:
    """By the shorter list, where that is short enough."""
    conditions, parameters = _conditions(scope, filter)
    [(passing, others, passages)] = ask(
        session,
        "SELECT array_agg(id) FILTER (WHERE passes)::text, array_agg(id) FILTER (WHERE NOT passes)::text, "
        "coalesce(sum(chunk_count) FILTER (WHERE passes), 0)::bigint "
        f"FROM (SELECT id, chunk_count, {conditions} AS passes FROM documents WHERE tenant_id = %s) each",
        (*parameters, scope.tenant),
    )
    lists = ("IN", passing or "{}"), ("NOT IN", others or "{}")
    among, documents = min(lists, key=lambda each: len(each[1]))
    if len(documents) > LONGEST:
        return broadly(scope, filter, passages)._replace(unlisted=False)
    # As an array the planner would look at each of them, which takes a microsecond.
    return Allowed(f"(document_id {among} (SELECT unnest(%s::text[]))) IS TRUE", (documents,), passages)


def _conditions(scope: Scope, filter: Filter) -> tuple[str, tuple[Any, ...]]:
    """As `terrace.knowledge.index.filters` has them, which SQLAlchemy would take a millisecond to put together."""
    documents, tags = list(filter.documents), [key(tag) for tag in filter.tags]
    wanted: list[tuple[str, tuple[Any, ...]]] = [("tenant_id = %s", (scope.tenant,))]
    if documents:
        wanted.append(("id = ANY(%s)", (documents,)))
    if filter.collections:
        named, parameters = _named(filter.collections)
        ids = f"SELECT id FROM collections WHERE tenant_id = %s AND {named}"
        wanted.append((f"collection_id = ANY(ARRAY({ids}))", (scope.tenant, *parameters)))
    if tags:
        wanted.append((f"id = ANY(ARRAY({_TAGGED}))", (scope.tenant, tags)))
    return " AND ".join(condition for condition, _ in wanted), tuple(each for _, taken in wanted for each in taken)


def _named(collections: Sequence[str]) -> tuple[str, tuple[list[str], list[str]]]:
    """By their ids or their names."""
    return "(id = ANY(%s) OR name_key = ANY(%s))", (list(collections), [name.casefold() for name in collections])
