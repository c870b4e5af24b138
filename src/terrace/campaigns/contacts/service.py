"""Contacts as the doors and the other half of the room see them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields

from sqlmodel import Session

from terrace import settings
from terrace.campaigns.base import Contact, ContactList, Turn
from terrace.campaigns.contacts import history, store, values
from terrace.campaigns.contacts.tables import ContactRow
from terrace.errors import Conflict, Invalid, Missing
from terrace.knowledge.naming import tidy
from terrace.storage import Database
from terrace.types import Scope, now

Conversations = Callable[[Scope, str], Awaitable[Sequence[Turn]]]
"""The caller's own conversation, oldest turn first. Raises Missing."""

SHOWN_TURNS = 50
MAX_LISTS_OF_ONE = 100
REMEMBERED = 256  # lists whose fields are counted once until they change


@dataclass(frozen=True, slots=True)
class ContactDetail(Contact):
    history: Sequence[Turn]  # the last SHOWN_TURNS, oldest first
    turns: int  # of them all
    last_conversation: str | None


async def _no_conversations(_scope: Scope, _conversation_id: str) -> Sequence[Turn]:
    raise Missing("No such conversation.", code="conversation_missing")


class Contacts:
    """The functions that take a session run inside the caller's transaction."""

    def __init__(
        self,
        database: Database,
        options: settings.Campaigns | None = None,
        conversations: Conversations = _no_conversations,
    ) -> None:
        self._database = database
        self._options = options or settings.Campaigns()
        self._conversations = conversations
        self._counted: dict[tuple[str, str], tuple[int, dict[str, int]]] = {}

    # -- inside a transaction

    def page(self, session: Session, scope: Scope, list_id: str | None, after: str | None, limit: int) -> list[Contact]:
        """The contacts of a list (None: all) that follow the contact `after`, by id."""
        return store.page(session, scope, list_id, after, limit)

    def count(self, session: Session, scope: Scope, list_id: str | None) -> int:
        return store.count(session, scope, list_id)

    def fields(self, session: Session, scope: Scope, list_id: str | None) -> dict[str, int]:
        """Field -> how many contacts of the list have it filled; `key`, `name`, `email` first, always there."""
        if list_id is None:
            return store.fields(session, scope, None)
        revision = store.get_list(session, scope, list_id).revision
        known = self._counted.get((scope.tenant, list_id))
        if known is None or known[0] != revision:
            if len(self._counted) >= REMEMBERED:
                self._counted.clear()
            known = self._counted[scope.tenant, list_id] = (revision, store.fields(session, scope, list_id))
        return dict(known[1])

    def contact(self, session: Session, scope: Scope, contact_id: str) -> Contact:
        """Raises Missing."""
        return store.shown(session, scope, [store.get(session, scope, contact_id)])[0]

    def list_of(self, session: Session, scope: Scope, id_or_name: str) -> ContactList:
        """Raises Missing."""
        row = store.get_list(session, scope, id_or_name)
        return store.shown_list(row, store.count(session, scope, row.id))

    def last_conversation(self, session: Session, scope: Scope, contact_id: str) -> str | None:
        """What was said last, a line a turn, 4,000 characters at most; None when nothing was."""
        return history.last_conversation(session, scope, contact_id)

    # -- lists

    async def lists(self, scope: Scope) -> list[ContactList]:
        """By name."""
        return await self._database.read(store.lists, scope)

    async def field_counts(self, scope: Scope, list_id: str | None) -> tuple[int, dict[str, int]]:
        """(contacts, field -> how many have it) of a list, by id or name, or of all."""

        def read(session: Session) -> tuple[int, dict[str, int]]:
            found = None if list_id is None else store.get_list(session, scope, tidy(list_id)).id
            counts = self.fields(session, scope, found)
            return counts["key"], counts

        return await self._database.read(read)

    async def remove_list(self, scope: Scope, list_id: str) -> int:
        """With the contacts that are in no other list; how many went. A few at a time: others write too."""
        removed = 0
        while (some := await self._database.write(store.remove_list, scope, tidy(list_id))) is not None:
            removed += some
        return removed

    # -- contacts

    async def list(
        self, scope: Scope, *, list_id: str | None = None, q: str = "", limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Contact], str | None]:
        """Newest first, and the cursor of the next page; with `q` in key, name or e-mail."""

        def read(session: Session) -> list[Contact]:
            found = None if list_id is None else store.get_list(session, scope, tidy(list_id)).id
            return store.find(session, scope, list_id=found, q=tidy(q), limit=limit + 1, cursor=cursor)

        found = await self._database.read(read)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def get(self, scope: Scope, contact_id: str) -> ContactDetail:
        def read(session: Session) -> ContactDetail:
            contact = self.contact(session, scope, tidy(contact_id))
            return ContactDetail(
                **{each.name: getattr(contact, each.name) for each in dataclass_fields(contact)},
                history=history.turns(session, scope, contact.id, SHOWN_TURNS),
                turns=history.count(session, scope, contact.id),
                last_conversation=history.last_conversation(session, scope, contact.id),
            )

        return await self._database.read(read)

    async def create(
        self,
        scope: Scope,
        *,
        key: str = "",
        name: str = "",
        email: str = "",
        fields: Mapping[str, str] | None = None,
        lists: Sequence[str] = (),
    ) -> Contact:
        """Without a key, the e-mail address is it. Lists that are not there yet are made.

        Raises Conflict when there is a contact with this key.
        """
        email = values.clean_email(email)
        key = values.clean_key(key or values.key_of(email))
        name, kept = values.clean_name(name), self._checked(fields or {})

        def write(session: Session) -> Contact:
            if store.count(session, scope, None) >= self._options.max_contacts:
                raise Invalid(
                    f"There are {self._options.max_contacts:,} contacts already. Delete some, or raise "
                    "campaigns.max_contacts.",
                    code="too_many_contacts",
                )
            row = store.add(session, scope, key, name, email, kept)
            self._place(session, scope, row, lists)
            return self.contact(session, scope, row.id)

        return await self._database.write(write)

    async def change(
        self,
        scope: Scope,
        contact_id: str,
        *,
        name: str | None = None,
        email: str | None = None,
        fields: Mapping[str, str] | None = None,
        lists: Sequence[str] | None = None,
    ) -> Contact:
        """None leaves it. `fields` are set beside those there are, an empty one goes; `lists` are all it is then in."""
        new_email = None if email is None else values.clean_email(email)
        new_name = None if name is None else values.clean_name(name)
        given = self._checked(fields or {})

        def write(session: Session) -> Contact:
            row = store.get(session, scope, tidy(contact_id))
            if new_email is not None:
                _readdress(session, scope, row, new_email)
            if new_name is not None:
                row.name = new_name
            kept = {name: value for name, value in {**store.unpacked(row.fields), **given}.items() if value}
            values.check_size(kept, most=self._options.max_fields, longest=self._options.max_field_chars)
            row.fields = store.packed(kept)
            row.words = store.words(row.key, row.name, row.email)
            row.updated_at = now()
            session.add(row)
            session.flush()
            self._place(session, scope, row, store.lists_of(session, scope, [row.id]) if lists is None else lists)
            return self.contact(session, scope, row.id)

        return await self._database.write(write)

    async def remove(self, scope: Scope, contact_id: str) -> None:
        """With all that was said. Raises Missing."""
        await self._database.write(store.remove, scope, tidy(contact_id))

    async def add_history(
        self, scope: Scope, contact_id: str, turns: Sequence[Turn] = (), *, conversation_id: str | None = None
    ) -> ContactDetail:
        """What was said elsewhere, or a copy of one's own conversation (which replaces its earlier copy)."""
        copied = await self._conversations(scope, conversation_id) if conversation_id else ()
        said = [_checked_turn(each) for each in turns]
        heard = [_checked_turn(each, cut=True) for each in copied if each.text.strip()]

        def write(session: Session) -> None:
            row = store.get(session, scope, tidy(contact_id))
            history.add(session, scope, row.id, said)
            if conversation_id:
                history.add(session, scope, row.id, heard[-history.MAX_TURNS :], conversation_id=conversation_id)

        await self._database.write(write)
        return await self.get(scope, contact_id)

    def _checked(self, fields: Mapping[str, str]) -> dict[str, str]:
        return values.clean_fields(fields, most=self._options.max_fields, longest=self._options.max_field_chars)

    def _place(self, session: Session, scope: Scope, row: ContactRow, lists: Sequence[str]) -> None:
        if len(lists) > MAX_LISTS_OF_ONE:
            raise Invalid(f"A contact is in at most {MAX_LISTS_OF_ONE} lists.", code="too_many_lists")
        ids = [store.ensure_list(session, scope, tidy(each)).id for each in lists]
        store.set_lists(session, scope, row.id, ids)


def _readdress(session: Session, scope: Scope, row: ContactRow, email: str) -> None:
    """A key that was the address goes with it. Raises Conflict when another contact has the new one."""
    if email and row.key == values.key_of(row.email) and values.key_of(email) != row.key:
        if store.with_key(session, scope, values.key_of(email)) is not None:
            raise Conflict(f"Another contact has the key {values.key_of(email)!r}.", code="contact_exists")
        row.key = values.key_of(email)
    row.email = email


def _checked_turn(turn: Turn, *, cut: bool = False) -> Turn:
    text = values.clean(turn.text)
    if not text:
        raise Invalid("A turn of a conversation needs a text.", code="turn_empty")
    if len(text) > history.MAX_TEXT:
        if not cut:
            raise Invalid(
                f"A turn holds at most {history.MAX_TEXT:,} characters; one has {len(text):,}.", code="turn_too_long"
            )
        text = text[: history.MAX_TEXT - 1] + "…"
    return Turn(turn.role, text, turn.at)
