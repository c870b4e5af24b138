"""What was said between a contact and whoever writes to them. Functions of a session."""

from collections.abc import Sequence
from datetime import UTC

from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from terrace.campaigns.base import Role, Turn
from terrace.campaigns.contacts.tables import TurnRow
from terrace.errors import Invalid
from terrace.types import Scope, moment, new_id

MAX_TURNS = 1_000  # of one contact
MAX_TEXT = 20_000  # characters of one
LAST_TURNS = 20  # in `last_conversation`
LAST_CHARS = 4_000
WHO: dict[str, str] = {"user": "Contact", "assistant": "We"}


def add(
    session: Session,
    scope: Scope,
    contact_id: str,
    turns: Sequence[Turn],
    *,
    conversation_id: str | None = None,
) -> int:
    """How many were new: what is there already is not kept twice. A conversation replaces what it was before.

    Raises Invalid when the contact's history becomes too long.
    """
    mine = (col(TurnRow.tenant_id) == scope.tenant, col(TurnRow.contact_id) == contact_id)
    if conversation_id is not None:
        session.execute(delete(TurnRow).where(*mine, col(TurnRow.conversation_id) == conversation_id))
    known = set(session.execute(select(TurnRow.role, TurnRow.text, TurnRow.at).where(*mine)).all())
    fresh = [(each.role, each.text, _seconds(each)) for each in turns]
    fresh = [each for each in dict.fromkeys(fresh) if each not in known]
    if len(known) + len(fresh) > MAX_TURNS:
        raise Invalid(
            f"The history of one contact holds at most {MAX_TURNS:,} turns; this would make "
            f"{len(known) + len(fresh):,}.",
            code="history_too_long",
        )
    session.add_all(
        TurnRow(
            id=new_id("trn"),
            tenant_id=scope.tenant,
            contact_id=contact_id,
            role=role,
            text=text,
            at=at,
            conversation_id=conversation_id,
            user_id=scope.user if conversation_id else None,
        )
        for role, text, at in fresh
    )
    return len(fresh)


def turns(session: Session, scope: Scope, contact_id: str, limit: int) -> list[Turn]:
    """The last ones, oldest first."""
    query = select(TurnRow).where(TurnRow.tenant_id == scope.tenant, TurnRow.contact_id == contact_id)
    rows = session.exec(query.order_by(col(TurnRow.at).desc(), col(TurnRow.id).desc()).limit(limit)).all()
    return [Turn(_role(row.role), row.text, moment(row.at)) for row in reversed(rows)]


def of_many(session: Session, scope: Scope, contact_ids: Sequence[str]) -> dict[str, list[Turn]]:
    """All that was said, by contact, oldest first."""
    query = select(TurnRow).where(TurnRow.tenant_id == scope.tenant, col(TurnRow.contact_id).in_(contact_ids))
    said: dict[str, list[Turn]] = {}
    for row in session.exec(query.order_by(col(TurnRow.at), col(TurnRow.id))):
        said.setdefault(row.contact_id, []).append(Turn(_role(row.role), row.text, moment(row.at)))
    return said


def count(session: Session, scope: Scope, contact_id: str) -> int:
    query = select(func.count()).where(TurnRow.tenant_id == scope.tenant, TurnRow.contact_id == contact_id)
    return session.exec(query).one()


def last_conversation(session: Session, scope: Scope, contact_id: str) -> str | None:
    """A line for each of the last turns, oldest first, LAST_CHARS at most; None when nothing was said."""
    lines: list[str] = []
    left = LAST_CHARS
    for turn in reversed(turns(session, scope, contact_id, LAST_TURNS)):
        line = f"{WHO[turn.role]}: {turn.text}"
        if len(line) > left:
            if not lines:
                lines.append(line[: left - 1] + "…")
            break
        lines.append(line)
        left -= len(line) + 1
    return "\n".join(reversed(lines)) or None


def remove(session: Session, scope: Scope, contact_ids: Sequence[str]) -> None:
    gone = (col(TurnRow.tenant_id) == scope.tenant, col(TurnRow.contact_id).in_(contact_ids))
    session.execute(delete(TurnRow).where(*gone))


def _seconds(turn: Turn) -> float:
    """Without a time zone it is UTC."""
    return (turn.at if turn.at.tzinfo else turn.at.replace(tzinfo=UTC)).timestamp()


def _role(text: str) -> Role:
    return "user" if text == "user" else "assistant"
