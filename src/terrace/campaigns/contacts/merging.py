"""A group of people who come in: who is new, who has changed, and all of it in a handful of statements."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from sqlalchemy import Table, bindparam, insert, select, update
from sqlmodel import Session

from terrace.campaigns.contacts import store
from terrace.campaigns.contacts.reading.collecting import Person, people
from terrace.campaigns.contacts.store import CONTACTS
from terrace.campaigns.contacts.tables import MembershipRow
from terrace.errors import Invalid
from terrace.types import Scope, new_id, now

COUNTED = ("new", "changed", "unchanged")
MEMBERSHIPS: Table = MembershipRow.__table__  # type: ignore[attr-defined]


@dataclass(slots=True)
class _State:
    """Somebody as they are kept, and as they become."""

    id: str | None  # None: not there yet
    name: str = ""
    email: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    was: tuple[str, str, dict[str, str]] = ("", "", {})

    def take(self, person: Person) -> None:
        if person.name is not None:
            self.name = person.name
        if person.email is not None:
            self.email = person.email
        self.fields = {name: value for name, value in {**self.fields, **person.fields}.items() if value}

    @property
    def changed(self) -> bool:
        return (self.name, self.email, self.fields) != self.was


def compare(session: Session, scope: Scope, group: bytes) -> dict[str, int]:
    """What `merge` would count; nothing is written."""
    given = people(group)
    return _count(given, _states(session, scope, given))


def merge(session: Session, scope: Scope, list_id: str, group: bytes, *, most_fields: int, room: int) -> dict[str, int]:
    """Bring a group in and into the list; doing it again changes nothing. {new, changed, unchanged}.

    Raises Invalid when there is no `room` for so many new contacts.
    """
    given = people(group)
    states = _states(session, scope, given)
    counts = _count(given, states)
    for person in given:
        states[person.key].take(person)
        if len(states[person.key].fields) > most_fields:
            raise Invalid(
                f"With these columns {person.key!r} would have more than {most_fields:,} fields. Leave some out.",
                code="too_many_fields",
            )
    fresh = {key: state for key, state in states.items() if state.id is None}
    if len(fresh) > room:
        raise Invalid(
            "There is no room for so many contacts. Delete some, or raise campaigns.max_contacts.",
            code="too_many_contacts",
        )
    _insert(session, scope, fresh)
    changed = {key: state for key, state in states.items() if key not in fresh and state.changed}
    _update(session, scope, changed)
    ids = [str(state.id) for state in states.values()]
    _join(session, scope, list_id, ids)
    concerned = {list_id, *store.lists_of(session, scope, [str(state.id) for state in changed.values()])}
    store.touch(session, scope, sorted(concerned))
    return counts


def _states(session: Session, scope: Scope, given: Sequence[Person]) -> dict[str, _State]:
    """By key; those of people who are not there yet are empty."""
    states = {person.key: _State(None) for person in given}
    c = CONTACTS.c
    query = select(c.id, c.key, c.name, c.email, c.fields)
    for id, key, name, email, fields in session.execute(
        query.where(c.tenant_id == scope.tenant, c.key.in_(list(states)))
    ):
        kept = store.unpacked(fields)
        states[key] = _State(id, name, email, kept, (name, email, kept))
    return states


def _count(given: Sequence[Person], states: dict[str, _State]) -> dict[str, int]:
    """A row whose key came before in the same table is counted as such, not here."""
    counts = dict.fromkeys(COUNTED, 0)
    for person in given:
        if not person.repeated:
            counts[_kind(person, states[person.key])] += 1
    return counts


def _kind(person: Person, state: _State) -> str:
    if state.id is None:
        return "new"
    then = _State(state.id, state.name, state.email, state.fields, state.was)
    then.take(person)
    return "changed" if then.changed else "unchanged"


def _insert(session: Session, scope: Scope, fresh: dict[str, _State]) -> None:
    at, rows = now(), []
    for key, state in fresh.items():
        state.id = new_id("ctc")
        rows.append(
            {
                "id": state.id,
                "tenant_id": scope.tenant,
                "key": key,
                "name": state.name,
                "email": state.email,
                "fields": store.packed(state.fields),
                "words": store.words(key, state.name, state.email),
                "created_at": at,
                "updated_at": at,
            }
        )
    _insert_all(session, CONTACTS, rows)


def _update(session: Session, scope: Scope, changed: dict[str, _State]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "of": state.id,
            "name": state.name,
            "email": state.email,
            "fields": store.packed(state.fields),
            "words": store.words(key, state.name, state.email),
            "updated_at": now(),
        }
        for key, state in changed.items()
    ]
    if rows:
        mine = (CONTACTS.c.tenant_id == scope.tenant, CONTACTS.c.id == bindparam("of"))
        session.connection().execute(update(CONTACTS).where(*mine), rows)


def _join(session: Session, scope: Scope, list_id: str, ids: Sequence[str]) -> None:
    c = MEMBERSHIPS.c
    there = set(session.scalars(select(c.contact_id).where(c.list_id == list_id, c.contact_id.in_(ids))))
    rows = [
        {"tenant_id": scope.tenant, "list_id": list_id, "contact_id": each}
        for each in dict.fromkeys(ids)
        if each not in there
    ]
    _insert_all(session, MEMBERSHIPS, rows)


def _insert_all(session: Session, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Straight to the driver, in its own dialect: texts and numbers need nothing of what SQLAlchemy does for each row,
    which was a third of an import's cost."""
    if not rows:
        return
    connection = session.connection()
    compiled: Any = insert(table).compile(dialect=connection.dialect, column_keys=list(rows[0]))
    given: Any = rows if compiled.positiontup is None else list(map(itemgetter(*compiled.positiontup), rows))
    connection.exec_driver_sql(str(compiled), given)
