"""When local mode ends, a person is erased, or a tenant is exported or deleted."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

import msgspec
from sqlalchemy import ColumnElement, delete, update
from sqlmodel import Session, col, select

from terrace.chat import store
from terrace.chat.tables import ConversationRow, MessageRow
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope

EXPORTED = 50  # conversations read at a time


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular had asked on this machine becomes the first person's."""
    nobodys = (col(ConversationRow.tenant_id) == DEFAULT_TENANT, col(ConversationRow.user_id).is_(None))
    session.execute(update(ConversationRow).where(*nobodys).values(user_id=user_id))


def erase_user(session: Session, user_id: str) -> None:
    """Their conversations and questions, in every tenant."""
    _drop(session, col(ConversationRow.user_id) == user_id)


def erase_tenant(session: Session, scope: Scope) -> None:
    _drop(session, col(ConversationRow.tenant_id) == scope.tenant)


async def export(database: Database, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """Every conversation and question of a tenant, a line of JSON each: the path in an archive, and the bytes."""
    yield "conversations.jsonl", _lines(database, scope)


async def _lines(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    last = ""
    while rows := await database.read(_after, scope, last):
        last = rows[-1][0]
        yield b"".join(line for _, line in rows)


def _after(session: Session, scope: Scope, last: str) -> Sequence[tuple[str, bytes]]:
    """(id, line) of the conversations that follow."""
    rows = session.exec(
        select(ConversationRow)
        .where(ConversationRow.tenant_id == scope.tenant, col(ConversationRow.id) > last)
        .order_by(col(ConversationRow.id))
        .limit(EXPORTED)
    ).all()
    return [(row.id, _line(session, scope, row)) for row in rows]


def _line(session: Session, scope: Scope, row: ConversationRow) -> bytes:
    messages = store.messages(session, scope, row.id)
    told = asdict(store.told(row, len(messages))) | {"user_id": row.user_id, "messages": list(map(asdict, messages))}
    return msgspec.json.encode(told) + b"\n"


def _drop(session: Session, which: ColumnElement[bool]) -> None:
    conversations = select(ConversationRow.id).where(which)
    session.execute(delete(MessageRow).where(col(MessageRow.conversation_id).in_(conversations)))
    session.execute(delete(ConversationRow).where(which))
