"""The question service: one question, one answer, both kept.

A question is the first exchange of a conversation of its own kind, so it is answered by the same durable job, may cite
documents, and can be gone on with as any conversation can.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from sqlmodel import Session, col, select

from terrace.chat import store
from terrace.chat.base import Ask, MessageState
from terrace.chat.service import Chat
from terrace.chat.tables import ConversationRow, MessageRow
from terrace.errors import Invalid, Missing, bad_cursor
from terrace.storage import Database
from terrace.types import Scope, moment

MAX_LIMIT = 200
_ID = re.compile(r"qst_[0-9a-z]{26}")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that is kept, and the job that answers it."""

    id: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Question:
    """`answer` is what there is of it: all once `state` is complete. `error` says why there is no more."""

    id: str
    question: str
    answer: str
    state: MessageState
    model: str | None
    sources: list[dict[str, Any]]
    usage: dict[str, Any] | None
    error: dict[str, Any] | None
    job_id: str | None
    conversation_id: str
    user_id: str | None
    created_at: datetime


class Questions:
    def __init__(self, database: Database, chat: Chat) -> None:
        self._database = database
        self._chat = chat

    async def ask(self, scope: Scope, ask: Ask) -> Asked:
        """Raises what `Chat.ask` raises. A key is one of questions alone: a message of the chat may have the same."""
        key = None if ask.key is None else f"question/{ask.key}"
        started = await self._chat.ask(scope, replace(ask, kind="qst", key=key))
        return Asked(started.conversation_id, started.job_id)

    async def get(self, scope: Scope, question_id: str) -> Question:
        """Raises Missing."""
        found = await self._database.read(_read, scope, question_id)
        if found is None:
            raise Missing("No such question.", code="question_missing")
        return found

    async def list(
        self, scope: Scope, *, limit: int = 50, cursor: str | None = None
    ) -> "tuple[list_[Question], str | None]":
        """One's own, newest first, and the cursor of the next page."""
        if not 1 <= limit <= MAX_LIMIT:
            raise Invalid(f"limit must be between 1 and {MAX_LIMIT}.", code="bad_limit")
        if cursor is not None and not _ID.fullmatch(cursor):
            raise bad_cursor()
        found = await self._database.read(_page, scope, limit + 1, cursor)
        following = found[limit - 1].id if len(found) > limit else None
        return found[:limit], following


list_ = list  # `Questions.list` hides the builtin inside the class


def _read(session: Session, scope: Scope, question_id: str) -> Question | None:
    if not _ID.fullmatch(question_id):
        return None
    row = session.exec(select(ConversationRow).where(ConversationRow.id == question_id, *store.own(scope))).all()
    return next(iter(_told(session, scope, row)), None)


def _page(session: Session, scope: Scope, limit: int, before: str | None) -> list[Question]:
    where = [*store.own(scope), store.of_kind("qst")]
    if before is not None:
        where.append(col(ConversationRow.id) < before)
    newest = select(ConversationRow).where(*where).order_by(col(ConversationRow.id).desc()).limit(limit)
    return _told(session, scope, session.exec(newest).all())


def _told(session: Session, scope: Scope, rows: Sequence[ConversationRow]) -> list[Question]:
    """Each with the first message of its conversation and the answer to it."""
    of_them = (MessageRow.tenant_id == scope.tenant, col(MessageRow.conversation_id).in_([row.id for row in rows]))
    newest_first = col(MessageRow.id).desc()
    roots = session.exec(select(MessageRow).where(*of_them, col(MessageRow.parent_id).is_(None)).order_by(newest_first))
    asked = {root.conversation_id: root for root in roots}
    replies = session.exec(
        select(MessageRow)
        .where(*of_them, col(MessageRow.parent_id).in_([root.id for root in asked.values()]))
        .order_by(newest_first)
    ).all()
    answers = {reply.parent_id: reply for reply in sorted(replies, key=lambda reply: reply.state == "complete")}
    return [
        _question(row, asked[row.id], answers[asked[row.id].id])
        for row in rows
        if row.id in asked and asked[row.id].id in answers
    ]


def _question(row: ConversationRow, asked: MessageRow, answer: MessageRow) -> Question:
    return Question(
        id=row.id,
        question=asked.content,
        answer=answer.content,
        state=cast("MessageState", answer.state),
        model=answer.model,
        sources=answer.sources or [],
        usage=answer.usage,
        error=answer.error,
        job_id=answer.job_id,
        conversation_id=row.id,
        user_id=row.user_id,
        created_at=moment(row.created_at),
    )
