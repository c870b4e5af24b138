"""The messages of campaigns: looked at, changed, written again, approved, exported."""

from collections.abc import AsyncIterator

from sqlalchemy import text
from sqlmodel import Session

from terrace.campaigns.runs import store
from terrace.campaigns.runs.base import Campaign, Message, MessageState
from terrace.campaigns.runs.export import Format, export
from terrace.campaigns.runs.steps import Steps, tally_of
from terrace.campaigns.runs.tables import CampaignRow
from terrace.errors import Conflict, Invalid
from terrace.storage import Database
from terrace.types import Scope, now

MAX_LIMIT = 200
MAX_TEXT_CHARS = 150_000

APPROVE_ALL = text(
    "UPDATE campaign_messages SET approved_at = :now WHERE campaign_id = :id AND state = 'done' AND approved_at IS NULL"
)
EDIT = text(
    "UPDATE campaign_messages SET text = :text, state = 'done', error = NULL, seq = :seq, edited_at = :now, "
    "approved_at = NULL, finished_at = COALESCE(finished_at, :now) WHERE id = :id"
)
APPROVE = text("UPDATE campaign_messages SET approved_at = :now WHERE id = :id")


class Outbox:
    def __init__(self, database: Database, steps: Steps) -> None:
        self._database = database
        self._steps = steps

    async def messages(
        self,
        scope: Scope,
        campaign_id: str,
        *,
        state: MessageState | None = None,
        approved: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Message], str | None]:
        """In the order of the contacts, and the cursor of the next page. Raises Missing."""
        check_limit(limit)

        def work(session: Session) -> list[Message]:
            store.find(session, scope, campaign_id)
            return store.messages(
                session, scope, campaign_id, state=state, approved=approved, limit=limit + 1, cursor=cursor
            )

        found = await self._database.read(work)
        return found[:limit], (found[limit - 1].id if len(found) > limit else None)

    async def message(self, scope: Scope, campaign_id: str, message_id: str) -> Message:
        """Raises Missing."""
        return await self._database.read(store.message, scope, campaign_id, message_id)

    async def edit(self, scope: Scope, campaign_id: str, message_id: str, words: str) -> Message:
        """Its text as somebody wants it. Raises Missing, Invalid, Conflict while it is written."""
        if not 0 < len(words.strip()) <= MAX_TEXT_CHARS:
            raise Invalid(f"A message has 1 to {MAX_TEXT_CHARS:,} characters.", code="bad_text")

        def work(session: Session) -> Message:
            row, message = self._ended(session, scope, campaign_id, message_id)
            row.seq += 1
            _recount(row, message, "done")
            session.add(row)
            values = {"id": message.id, "text": words.replace("\0", ""), "seq": row.seq, "now": now()}
            session.execute(EDIT, values)
            self._steps.told(session, row.id)
            return store.message(session, scope, campaign_id, message_id)

        return await self._database.write(work)

    async def regenerate(self, scope: Scope, campaign_id: str, message_id: str) -> Message:
        """Write one again; its text stays until there is another. Raises Missing, Conflict, Limited."""

        def work(session: Session) -> Message:
            row, message = self._ended(session, scope, campaign_id, message_id)
            if row.state == "cancelled":
                raise Conflict("This campaign was cancelled: nothing is written for it any more.", code="campaign_over")
            _recount(row, message, None)
            session.add(row)
            session.flush()
            session.expire_all()
            self._steps.put_in(session, tally_of(session, scope, campaign_id), [message_id], again=True)
            self._steps.told(session, row.id)
            return store.message(session, scope, campaign_id, message_id)

        return await self._database.write(work)

    async def approve(self, scope: Scope, campaign_id: str, message_id: str) -> Message:
        """Raises Missing, Conflict when there is nothing to approve."""

        def work(session: Session) -> Message:
            row = store.find(session, scope, campaign_id)
            message = store.message(session, scope, campaign_id, message_id)
            if message.state != "done":
                raise Conflict(f"Only a written message can be approved; this one is {message.state}.", code="not_done")
            if message.approved_at is None:
                row.approved += 1
                session.add(row)
                session.execute(APPROVE, {"id": message_id, "now": now()})
            return store.message(session, scope, campaign_id, message_id)

        return await self._database.write(work)

    async def approve_all(self, scope: Scope, campaign_id: str) -> Campaign:
        """All that is written. Raises Missing."""

        def work(session: Session) -> Campaign:
            row = store.find(session, scope, campaign_id)
            row.approved += session.execute(APPROVE_ALL, {"id": row.id, "now": now()}).rowcount  # type: ignore[attr-defined]
            session.add(row)
            session.flush()
            return store.told(session, row)

        return await self._database.write(work)

    def export(
        self,
        scope: Scope,
        campaign_id: str,
        format: Format,
        *,
        state: MessageState | None = None,
        approved: bool | None = None,
    ) -> AsyncIterator[bytes]:
        """Its messages, piece by piece."""
        return export(self._database, scope, campaign_id, format, state=state, approved=approved)

    def _ended(self, session: Session, scope: Scope, campaign_id: str, message_id: str) -> tuple[CampaignRow, Message]:
        """A message that nobody writes or will write by themselves. Raises Missing, Conflict."""
        row = store.find(session, scope, campaign_id)
        message = store.message(session, scope, campaign_id, message_id)
        if message.state in ("waiting", "writing"):
            raise Conflict("This message is not written yet.", code="not_done")
        return row, message


def _recount(row: CampaignRow, message: Message, state: str | None) -> None:
    """From what it was to `state`, or to being written."""
    setattr(row, message.state, getattr(row, message.state) - 1)
    if state is not None:
        setattr(row, state, getattr(row, state) + 1)
    if message.approved_at is not None:
        row.approved -= 1


def check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"limit must be between 1 and {MAX_LIMIT}.", code="bad_limit")
