"""Contacts as the doors and the other half of the room see them."""

from sqlmodel import Session

from terrace.campaigns.base import Contact, ContactList
from terrace.campaigns.contacts import history, store
from terrace.types import Scope


class Contacts:
    """The functions that take a session run inside the caller's transaction."""

    def page(self, session: Session, scope: Scope, list_id: str | None, after: str | None, limit: int) -> list[Contact]:
        """The contacts of a list (None: all) that follow the contact `after`, by id."""
        return store.page(session, scope, list_id, after, limit)

    def count(self, session: Session, scope: Scope, list_id: str | None) -> int:
        return store.count(session, scope, list_id)

    def fields(self, session: Session, scope: Scope, list_id: str | None) -> dict[str, int]:
        """Field -> how many contacts of the list have it filled; `key`, `name`, `email` first, always there."""
        return store.fields(session, scope, list_id)

    def contact(self, session: Session, scope: Scope, contact_id: str) -> Contact:
        """Raises Missing."""
        return store.shown(session, scope, [store.get(session, scope, contact_id)])[0]

    def list_of(self, session: Session, scope: Scope, id_or_name: str) -> ContactList:
        """Raises Missing."""
        row = store.get_list(session, scope, id_or_name)
        return next(each for each in store.lists(session, scope) if each.id == row.id)

    def last_conversation(self, session: Session, scope: Scope, contact_id: str) -> str | None:
        """What was said last, a line a turn, 4,000 characters at most; None when nothing was."""
        return history.last_conversation(session, scope, contact_id)
