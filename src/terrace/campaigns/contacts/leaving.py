"""When local mode ends, a person is erased, a tenant is exported or deleted. Contacts are the tenant's."""

from collections.abc import AsyncIterator
from dataclasses import asdict

import msgspec
from sqlalchemy import delete, update
from sqlmodel import Session, col

from terrace.campaigns.contacts import history, store
from terrace.campaigns.contacts.intake import Intake
from terrace.campaigns.contacts.tables import ContactListRow, ContactRow, MembershipRow, TurnRow
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope

PAGE = 500


def adopt(session: Session, user_id: str) -> None:
    """What was copied from conversations that become the first person's is theirs as well."""
    nobodys = (col(TurnRow.tenant_id) == DEFAULT_TENANT, col(TurnRow.user_id).is_(None))
    copied = col(TurnRow.conversation_id).is_not(None)
    session.execute(update(TurnRow).where(*nobodys, copied).values(user_id=user_id))


def erase_user(session: Session, user_id: str) -> None:
    """What was copied from their own conversations goes with those."""
    if not user_id:
        raise ValueError("nobody cannot be erased")
    session.execute(delete(TurnRow).where(col(TurnRow.user_id) == user_id))


class Leaving:
    def __init__(self, database: Database, intake: Intake) -> None:
        self._database = database
        self._intake = intake

    def erase_tenant(self, session: Session, scope: Scope) -> None:
        self._intake.erase_tenant(session, scope)
        for table in (TurnRow, MembershipRow, ContactRow, ContactListRow):
            session.execute(delete(table).where(col(table.tenant_id) == scope.tenant))

    async def export(self, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """(path in the archive, its bytes): a line of JSON for each list, and for each contact with what was said."""
        yield "contacts/lists.jsonl", self._lists(scope)
        yield "contacts/contacts.jsonl", self._contacts(scope)

    async def _lists(self, scope: Scope) -> AsyncIterator[bytes]:
        for each in await self._database.read(store.lists, scope):
            yield msgspec.json.encode(asdict(each)) + b"\n"

    async def _contacts(self, scope: Scope) -> AsyncIterator[bytes]:
        after: str | None = None
        while True:
            after, lines = await self._database.read(_page, scope, after)
            yield b"".join(lines)
            if after is None:
                return


def _page(session: Session, scope: Scope, after: str | None) -> tuple[str | None, list[bytes]]:
    """(the last one's id, or None at the end; a line for each)."""
    found = store.page(session, scope, None, after, PAGE)
    said = history.of_many(session, scope, [each.id for each in found])
    lines = [
        msgspec.json.encode({**asdict(each), "history": [asdict(turn) for turn in said.get(each.id, ())]}) + b"\n"
        for each in found
    ]
    return (found[-1].id if len(found) == PAGE else None), lines
