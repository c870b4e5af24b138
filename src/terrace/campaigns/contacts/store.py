"""Rows of contacts and lists. Functions of a session: they run inside `Database.read` or `write`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Table, delete, exists, func, insert, update
from sqlmodel import Session, col, select

from terrace.campaigns.base import Contact, ContactList
from terrace.campaigns.contacts import history
from terrace.campaigns.contacts.tables import ContactListRow, ContactRow, MembershipRow
from terrace.campaigns.contacts.values import list_name
from terrace.errors import Conflict, Invalid, Missing
from terrace.types import Scope, moment, new_id, now

MAX_LISTS = 1_000
AT_ONCE = 500  # rows of one statement
READ = 2_000  # contacts looked through at a time
Fields = dict[str, str]

CONTACTS: Table = ContactRow.__table__  # type: ignore[attr-defined]

_decoder = msgspec.json.Decoder(Fields)

# -- lists


def find_list(session: Session, scope: Scope, id_or_name: str) -> ContactListRow | None:
    mine = select(ContactListRow).where(ContactListRow.tenant_id == scope.tenant)
    by_id = session.exec(mine.where(ContactListRow.id == id_or_name)).one_or_none()
    return by_id or session.exec(mine.where(ContactListRow.name_key == id_or_name.casefold())).one_or_none()


def get_list(session: Session, scope: Scope, id_or_name: str) -> ContactListRow:
    if (row := find_list(session, scope, id_or_name)) is None:
        raise Missing("There is no such list of contacts.", code="list_missing")
    return row


def ensure_list(session: Session, scope: Scope, id_or_name: str) -> ContactListRow:
    """The list of this id or name; made when there is none."""
    if (row := find_list(session, scope, id_or_name)) is not None:
        return row
    if id_or_name.startswith("lst_"):
        raise Missing("There is no such list of contacts.", code="list_missing")
    total = select(func.count()).select_from(ContactListRow).where(ContactListRow.tenant_id == scope.tenant)
    if session.exec(total).one() >= MAX_LISTS:
        raise Invalid(f"There may be at most {MAX_LISTS:,} lists of contacts.", code="too_many_lists")
    name, moment_ = list_name(id_or_name), now()
    if (row := find_list(session, scope, name)) is not None:
        return row
    row = ContactListRow(
        id=new_id("lst"),
        tenant_id=scope.tenant,
        name=name,
        name_key=name.casefold(),
        created_at=moment_,
        updated_at=moment_,
    )
    session.add(row)
    session.flush()
    return row


def lists(session: Session, scope: Scope) -> list[ContactList]:
    """By name, each with how many contacts are in it."""
    counts = dict(
        session.exec(
            select(MembershipRow.list_id, func.count())
            .where(MembershipRow.tenant_id == scope.tenant)
            .group_by(col(MembershipRow.list_id))
        ).all()
    )
    mine = select(ContactListRow).where(ContactListRow.tenant_id == scope.tenant)
    rows = session.exec(mine.order_by(col(ContactListRow.name_key))).all()
    return [shown_list(row, counts.get(row.id, 0)) for row in rows]


def shown_list(row: ContactListRow, contacts: int) -> ContactList:
    return ContactList(row.id, row.name, contacts, moment(row.created_at), moment(row.updated_at))


def lists_of(session: Session, scope: Scope, contact_ids: Sequence[str]) -> list[str]:
    """Those that one of the contacts is in."""
    mine = (col(MembershipRow.tenant_id) == scope.tenant, col(MembershipRow.contact_id).in_(contact_ids))
    return list(session.exec(select(MembershipRow.list_id).where(*mine).distinct())) if contact_ids else []


def touch(session: Session, scope: Scope, list_ids: Sequence[str]) -> None:
    """Something about them, or about a contact in them, has changed."""
    mine = (col(ContactListRow.tenant_id) == scope.tenant, col(ContactListRow.id).in_(list_ids))
    grown = {"revision": col(ContactListRow.revision) + 1, "updated_at": now()}
    session.execute(update(ContactListRow).where(*mine).values(**grown))


# -- contacts, read


def page(session: Session, scope: Scope, list_id: str | None, after: str | None, limit: int) -> list[Contact]:
    """The contacts of a list (of all of them: None) that follow the contact `after`, in the order they came in."""
    return shown(session, scope, _rows(session, scope, list_id, after, limit))


def find(
    session: Session, scope: Scope, *, list_id: str | None, q: str, limit: int, cursor: str | None
) -> list[Contact]:
    """Newest first, those older than the contact `cursor`; with `q` in key, name or e-mail."""
    wanted = _wanted(scope, None)
    if list_id is not None:
        members = (col(MembershipRow.list_id) == list_id, col(MembershipRow.contact_id) == ContactRow.id)
        wanted.append(exists().where(*members))
    if q:
        wanted.append(col(ContactRow.words).contains(q.casefold(), autoescape=True))
    if cursor is not None:
        wanted.append(col(ContactRow.id) < cursor)
    query = select(ContactRow).where(*wanted).order_by(col(ContactRow.id).desc()).limit(limit)
    return shown(session, scope, session.exec(query).all())


def count(session: Session, scope: Scope, list_id: str | None) -> int:
    if list_id is None:
        query = select(func.count()).select_from(ContactRow).where(ContactRow.tenant_id == scope.tenant)
    else:
        members = (MembershipRow.tenant_id == scope.tenant, MembershipRow.list_id == list_id)
        query = select(func.count()).select_from(MembershipRow).where(*members)
    return session.exec(query).one()


def fields(session: Session, scope: Scope, list_id: str | None) -> dict[str, int]:
    """Every field some contact of the list has, and how many have it: `key`, `name` and `email` first."""
    filled: Counter[str] = Counter()
    total = named = mailed = 0
    columns = (CONTACTS.c.id, CONTACTS.c.name, CONTACTS.c.email, CONTACTS.c.fields)
    after: str | None = None
    while rows := _rows(session, scope, list_id, after, READ, columns):
        after = rows[-1][0]
        total += len(rows)
        for _, name, email, packed_ in rows:
            named += bool(name)
            mailed += bool(email)
            filled.update(_decoder.decode(packed_).keys())
    return {"key": total, "name": named, "email": mailed, **dict(sorted(filled.items()))}


def get(session: Session, scope: Scope, contact_id: str) -> ContactRow:
    """Raises Missing."""
    query = select(ContactRow).where(ContactRow.tenant_id == scope.tenant, ContactRow.id == contact_id)
    if (row := session.exec(query).one_or_none()) is None:
        raise Missing("There is no such contact.", code="contact_missing")
    return row


def with_key(session: Session, scope: Scope, key: str) -> ContactRow | None:
    query = select(ContactRow).where(ContactRow.tenant_id == scope.tenant, ContactRow.key == key)
    return session.exec(query).one_or_none()


def words(key: str, name: str, email: str) -> str:
    """What a contact is found by."""
    return "\n".join(dict.fromkeys((key.casefold(), name.casefold(), email.casefold())))


def packed(fields: Mapping[str, str]) -> str:
    """As they are kept: those that hold something."""
    return msgspec.json.encode({name: value for name, value in fields.items() if value}).decode()


def unpacked(text: str) -> dict[str, str]:
    return _decoder.decode(text)


def shown(session: Session, scope: Scope, rows: Sequence[Any]) -> list[Contact]:
    """Rows as others see them."""
    member_of: dict[str, list[str]] = {}
    query = select(MembershipRow.contact_id, MembershipRow.list_id).where(
        MembershipRow.tenant_id == scope.tenant, col(MembershipRow.contact_id).in_([row.id for row in rows])
    )
    for contact_id, list_id in session.exec(query.order_by(col(MembershipRow.list_id))):
        member_of.setdefault(contact_id, []).append(list_id)
    return [
        Contact(
            id=row.id,
            key=row.key,
            name=row.name,
            email=row.email,
            fields=_decoder.decode(row.fields),
            list_ids=tuple(member_of.get(row.id, ())),
            created_at=moment(row.created_at),
            updated_at=moment(row.updated_at),
        )
        for row in rows
    ]


def _wanted(scope: Scope, list_id: str | None) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [col(ContactRow.tenant_id) == scope.tenant]
    if list_id is not None:
        wanted += [col(MembershipRow.tenant_id) == scope.tenant, col(MembershipRow.list_id) == list_id]
    return wanted


def _rows(
    session: Session,
    scope: Scope,
    list_id: str | None,
    after: str | None,
    limit: int,
    columns: Sequence[Any] = tuple(CONTACTS.c),
) -> Sequence[Any]:
    wanted = _wanted(scope, list_id)
    place = col(ContactRow.id if list_id is None else MembershipRow.contact_id)
    if after is not None:
        wanted.append(place > after)
    query = select(*columns).where(*wanted)
    if list_id is not None:  # along the list, not along all the tenant's contacts
        query = query.join(MembershipRow, col(MembershipRow.contact_id) == ContactRow.id)
    return session.execute(query.order_by(place).limit(limit)).all()


# -- contacts, changed


def add(session: Session, scope: Scope, key: str, name: str, email: str, fields: Mapping[str, str]) -> ContactRow:
    """Raises Conflict when there is a contact with this key."""
    if with_key(session, scope, key) is not None:
        raise Conflict(f"There is a contact with the key {key!r} already.", code="contact_exists")
    row = ContactRow(
        id=new_id("ctc"),
        tenant_id=scope.tenant,
        key=key,
        name=name,
        email=email,
        fields=packed(fields),
        words=words(key, name, email),
        created_at=now(),
        updated_at=now(),
    )
    session.add(row)
    session.flush()
    return row


def set_lists(session: Session, scope: Scope, contact_id: str, list_ids: Sequence[str]) -> None:
    """Be in these and no other."""
    mine = (col(MembershipRow.tenant_id) == scope.tenant, col(MembershipRow.contact_id) == contact_id)
    before = set(session.exec(select(MembershipRow.list_id).where(*mine)).all())
    touch(session, scope, sorted(before | set(list_ids)))
    session.execute(delete(MembershipRow).where(*mine))
    rows = [{"tenant_id": scope.tenant, "list_id": each, "contact_id": contact_id} for each in dict.fromkeys(list_ids)]
    if rows:
        session.execute(insert(MembershipRow), rows)


def remove(session: Session, scope: Scope, contact_id: str) -> None:
    """With all that was said. Raises Missing."""
    row = get(session, scope, contact_id)
    set_lists(session, scope, row.id, ())
    history.remove(session, scope, [row.id])
    session.delete(row)


def remove_list(session: Session, scope: Scope, list_id: str) -> int | None:
    """The next few contacts that are in no other list, and how many; None when it was empty and is gone itself.

    Raises Missing.
    """
    if (row := find_list(session, scope, list_id)) is None:
        raise Missing("There is no such list of contacts.", code="list_missing")
    of_it = (col(MembershipRow.tenant_id) == scope.tenant, col(MembershipRow.list_id) == row.id)
    members = select(MembershipRow.contact_id).where(*of_it).order_by(col(MembershipRow.contact_id))
    ids = list(session.exec(members.limit(AT_ONCE)))
    if not ids:
        session.delete(row)
        return None
    session.execute(delete(MembershipRow).where(*of_it, col(MembershipRow.contact_id).in_(ids)))
    theirs = (col(MembershipRow.tenant_id) == scope.tenant, col(MembershipRow.contact_id).in_(ids))
    elsewhere = session.exec(select(MembershipRow.contact_id).where(*theirs)).all()
    alone = sorted(set(ids).difference(elsewhere))
    history.remove(session, scope, alone)
    mine = (col(ContactRow.tenant_id) == scope.tenant, col(ContactRow.id).in_(alone))
    session.execute(delete(ContactRow).where(*mine))
    touch(session, scope, [row.id])
    return len(alone)
