"""The documents that a filter lets through. Few of them are listed. Their ids stay as PostgreSQL wrote them: to unpack
thousands, and to pack them again for each statement, takes milliseconds.

Where most of what a tenant has passes, each row is told whether its document does: each statement finds out itself.
What is asked for a second time, with nothing changed, is mapped beside the searches, a bit for each passage, and the
statements look there from then on.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.knowledge.base import Filter
from terrace.knowledge.index.postgres.asking import SETTINGS, ask
from terrace.knowledge.index.postgres.kept import Kept
from terrace.knowledge.naming import key
from terrace.storage.database import driver_of, with_settings
from terrace.types import Scope

MANY = 10_000  # passages
BROAD_SECONDS = 60.0  # that a filter is taken for one that lets most of them through
MAPPABLE = 200_000  # passages: to find more takes longer than it saves
LARGEST = 128 * 1024  # bytes of a map, which goes with each statement: the numbers of a million passages, anybody's
MOST_BYTES = 8 * 1024 * 1024  # of what is kept

_TAGGED = "SELECT document_id FROM document_tags WHERE tenant_id = %s AND tag = ANY(%s)"


Condition = tuple[str, tuple[Any, ...]]  # and what it takes


class Allowed(NamedTuple):
    within: Condition  # of a row's `document_id`, by which rows are found
    passes: Condition  # the same of a row that is there, by its `document_id` or its `number`
    passages: int  # that pass, about
    of: tuple[Filter, str] | None = None  # what was asked for, and in which state, where that is known
    unmapped: bool = False  # though they could be, should the same be asked for again

    @property
    def bytes(self) -> int:
        return sum(len(each) for each in (*self.within[1], *self.passes[1]))


NOTHING = Allowed(("false", ()), ("false", ()), 0)


class Passing:
    """What filters let through, kept for as long as nothing changes. For any thread."""

    def __init__(self) -> None:
        self._kept: Kept[tuple[str, tuple[Filter, str]], Allowed] = Kept(MOST_BYTES)
        self._broad: Kept[tuple[str, Filter], Allowed] = Kept(MOST_BYTES, BROAD_SECONDS)
        self._asked_again: dict[str, Filter] = {}

    def of(self, session: Session, scope: Scope, filter: Filter, state_: str = "") -> Allowed | None:
        """None: whatever there is. `state_`: what `state` says, where somebody has asked already."""
        if filter == Filter():
            return None
        of = filter, state_ or state(session, scope, filter)
        known = self._kept.get((scope.tenant, of))
        if known is None:
            known = self._looked_up(session, scope, filter)._replace(of=of)
            self._kept.keep((scope.tenant, of), known)
        elif known.unmapped:
            self._asked_again[scope.tenant] = filter
        return known

    def asked_again(self, scope: Scope) -> Filter | None:
        """Of which there should be a map. It is told once."""
        return self._asked_again.pop(scope.tenant, None)

    @with_settings(SETTINGS)
    def map(self, session: Session, scope: Scope, filter: Filter) -> None:
        of = filter, state(session, scope, filter)
        known = self._kept.get((scope.tenant, of))
        if known is not None and known.unmapped:
            self._kept.keep((scope.tenant, of), mapped(session, scope, filter, known)._replace(unmapped=False))

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
    """`documents`: their ids, as an array is written. It stands in a query of its own, else the planner would look at
    each of them, which takes a microsecond."""
    within = "document_id = ANY((SELECT %s::text[])::text[])", (documents,)
    return Allowed(within, ("(document_id IN (SELECT unnest(%s::text[]))) IS TRUE", (documents,)), passages)


def narrowed(among: Allowed | None) -> Condition:
    """What more is to hold of a row, and what that takes."""
    return ("", ()) if among is None else (f"AND {among.within[0]}", among.within[1])


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


# As a truth value a condition is looked up row by row, and nothing else is done first because of it.


def broadly(scope: Scope, filter: Filter, passages: int) -> Allowed:
    conditions, parameters = _conditions(scope, filter)
    among = f"(document_id IN (SELECT id FROM documents WHERE {conditions})) IS TRUE", parameters
    return Allowed(among, among, passages, unmapped=passages <= MAPPABLE)


def mapped(session: Session, scope: Scope, filter: Filter, broad: Allowed) -> Allowed:
    """As it was, where the passages' numbers lie too far apart."""
    import numpy as np

    conditions, parameters = _conditions(scope, filter)
    with driver_of(session).cursor(binary=True) as cursor:
        [(sent,)] = cursor.execute(
            "SELECT string_agg(int8send(number), '') FROM chunks "
            f"WHERE tenant_id = %s AND document_id IN (SELECT id FROM documents WHERE {conditions})",
            (scope.tenant, *parameters),
        ).fetchall()
    numbers = np.frombuffer(sent or b"", ">i8").astype(np.int64)
    if not len(numbers):
        return broad
    first, last = int(numbers.min()), int(numbers.max())
    if last - first >= 8 * LARGEST:
        return broad
    bits = np.zeros(last - first + 1, bool)
    bits[numbers - first] = True
    passes = f"CASE WHEN number BETWEEN {first} AND {last} THEN get_bit(%s, number - {first}) = 1 ELSE false END"
    return broad._replace(passes=(passes, (np.packbits(bits, bitorder="little").tobytes(),)), passages=len(numbers))


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
    return "(id = ANY(%s) OR name_key = ANY(%s))", (list(collections), [key(name) for name in collections])
