"""Rows in, words out: sync functions for `Database.read` and `write`, each within its scope."""

import json
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, and_, delete, func, or_, update
from sqlmodel import Session, col, select

from terrace.chat.base import Conversation, ConversationKind, Message, MessageState, Role, Turn
from terrace.chat.tables import ConversationRow, MessageRow
from terrace.chat.text import storable
from terrace.errors import Conflict, Invalid, Missing
from terrace.jobs.tables import JobEventRow
from terrace.types import Scope, moment, new_id, now

MAX_MESSAGES = 2000
HISTORY_MESSAGES = 200
SEARCH_WORDS = 8
SNIPPET_CHARS = 160
MAX_TITLE = 200


# -- conversations


def conversation(session: Session, scope: Scope, conversation_id: str) -> ConversationRow:
    """Raises Missing."""
    row = session.exec(
        select(ConversationRow).where(ConversationRow.id == storable(conversation_id), *own(scope))
    ).one_or_none()
    if row is None:
        raise Missing("No such conversation.", code="conversation_missing")
    return row


def create(
    session: Session, scope: Scope, title: str, kind: ConversationKind = "cnv", *, head_id: str | None = None
) -> ConversationRow:
    """`head_id`: of the message that is about to be its last."""
    at = now()
    row = ConversationRow(
        id=new_id(kind), tenant_id=scope.tenant, user_id=scope.user, title=title, created_at=at, updated_at=at,
        head_id=head_id,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def change(
    session: Session, scope: Scope, conversation_id: str, title: str | None, head_id: str | None
) -> Conversation:
    row = conversation(session, scope, conversation_id)
    if title is not None:
        row.title = title
    if head_id is not None:
        row.head_id = message(session, scope, conversation_id, head_id).id
    session.add(row)
    session.flush()
    return told(row, count(session, scope, conversation_id))


def remove(session: Session, scope: Scope, conversation_id: str) -> list[str]:
    """Delete it with its messages; returns the jobs that were still writing."""
    row = conversation(session, scope, conversation_id)
    mine = (MessageRow.tenant_id == scope.tenant, MessageRow.conversation_id == row.id)
    running = session.exec(select(MessageRow.job_id).where(*mine, MessageRow.state == "running")).all()
    session.exec(delete(MessageRow).where(*cast("Any", mine)))
    session.delete(row)
    return [job for job in running if job]


def page(
    session: Session, scope: Scope, words: Sequence[str], limit: int, after: tuple[float, str] | None
) -> list[tuple[float, Conversation]]:
    """(when it changed, conversation), latest first, one more than `limit` where there are more.

    `words` must all stand in the title or in one message. Questions (`chat.questions`) have a list of their own.
    """
    where = [*own(scope), of_kind("cnv")]
    if after is not None:
        where.append(
            or_(
                col(ConversationRow.updated_at) < after[0],
                and_(col(ConversationRow.updated_at) == after[0], col(ConversationRow.id) < after[1]),
            )
        )
    if words:
        found = select(MessageRow.id).where(
            MessageRow.tenant_id == scope.tenant,
            MessageRow.conversation_id == ConversationRow.id,
            *(_holds(col(MessageRow.content), word) for word in words),
        )
        where.append(or_(and_(*(_holds(col(ConversationRow.title), word) for word in words)), found.exists()))
    order = (col(ConversationRow.updated_at).desc(), col(ConversationRow.id).desc())
    rows = session.exec(select(ConversationRow).where(*where).order_by(*order).limit(limit + 1)).all()
    counts = _counts(session, scope, [row.id for row in rows])
    return [(row.updated_at, told(row, counts.get(row.id, 0), _snippet(session, scope, row.id, words))) for row in rows]


def told(row: ConversationRow, messages: int, snippet: str | None = None) -> Conversation:
    return Conversation(
        row.id, row.title, row.head_id, moment(row.created_at), moment(row.updated_at), messages, snippet
    )


def of_kind(kind: ConversationKind) -> ColumnElement[bool]:
    return col(ConversationRow.id).startswith(f"{kind}_", autoescape=True)


def own(scope: Scope) -> list[ColumnElement[bool]]:
    user = col(ConversationRow.user_id)
    return [
        col(ConversationRow.tenant_id) == scope.tenant,
        user.is_(None) if scope.user is None else user == scope.user,
    ]


def _holds(column: Any, word: str) -> ColumnElement[bool]:
    """Portable, and blind to case: what LIKE folds on its own (ASCII), and other letters by their usual forms."""
    forms = dict.fromkeys((word, word.lower(), word.upper(), word.capitalize()))
    forms = forms if not word.isascii() else {word: None}
    return or_(*(column.icontains(form, autoescape=True) for form in forms))


def _snippet(session: Session, scope: Scope, conversation_id: str, words: Sequence[str]) -> str | None:
    if not words:
        return None
    content = session.exec(
        select(MessageRow.content)
        .where(
            MessageRow.tenant_id == scope.tenant,
            MessageRow.conversation_id == conversation_id,
            *(_holds(col(MessageRow.content), word) for word in words),
        )
        .order_by(col(MessageRow.id))
        .limit(1)
    ).first()
    return None if content is None else excerpt(content, words[0])


def excerpt(content: str, word: str) -> str:
    """One line of `content` around `word`, cut at blanks."""
    at = max(content.casefold().find(word.casefold()), 0)
    start, end = max(0, at - SNIPPET_CHARS // 3), min(len(content), at + SNIPPET_CHARS)
    if start:
        start = content.find(" ", start, at) + 1 or start
    if end < len(content):
        end = max(content.rfind(" ", at + len(word), end), at + len(word))
    line = " ".join(content[start:end].split())
    return ("… " if start else "") + line + (" …" if end < len(content) else "")


# -- messages


def message(session: Session, scope: Scope, conversation_id: str, message_id: str) -> MessageRow:
    """Raises Missing."""
    row = session.exec(
        select(MessageRow).where(
            MessageRow.id == storable(message_id),
            MessageRow.tenant_id == scope.tenant,
            MessageRow.conversation_id == conversation_id,
        )
    ).one_or_none()
    if row is None:
        raise Missing("No such message in this conversation.", code="message_missing")
    return row


def messages(session: Session, scope: Scope, conversation_id: str) -> list[Message]:
    """Every branch, oldest first."""
    rows = session.exec(
        select(MessageRow)
        .where(MessageRow.tenant_id == scope.tenant, MessageRow.conversation_id == conversation_id)
        .order_by(col(MessageRow.created_at), col(MessageRow.id))
    ).all()
    return [shown(row) for row in rows]


def shown(row: MessageRow) -> Message:
    return Message(
        id=row.id,
        parent_id=row.parent_id,
        role=cast("Role", row.role),
        content=row.content,
        state=cast("MessageState", row.state),
        model=row.model,
        sources=row.sources or [],
        usage=row.usage,
        job_id=row.job_id,
        error=row.error,
        created_at=moment(row.created_at),
        cached=row.cached_at is not None,
        cached_at=None if row.cached_at is None else moment(row.cached_at),
    )


def check_room(session: Session, scope: Scope, conversation_id: str, more: int) -> None:
    """Raises Conflict when it cannot take so many more messages."""
    if count(session, scope, conversation_id) + more > MAX_MESSAGES:
        raise Conflict(
            f"This conversation holds {MAX_MESSAGES} messages and takes no more. Start a new one.",
            code="conversation_full",
        )


def add(
    session: Session, scope: Scope, conversation_id: str, parent_id: str | None, role: Role, **values: Any
) -> MessageRow:
    """Append to the tree; it is written with what else the transaction adds."""
    row = MessageRow(
        **{"id": new_id("msg"), **values},
        tenant_id=scope.tenant,
        conversation_id=conversation_id,
        parent_id=parent_id,
        role=role,
        created_at=now(),
    )
    session.add(row)
    return row


def count(session: Session, scope: Scope, conversation_id: str) -> int:
    return _counts(session, scope, [conversation_id]).get(conversation_id, 0)


def _counts(session: Session, scope: Scope, conversations: Sequence[str]) -> dict[str, int]:
    rows = session.exec(
        select(MessageRow.conversation_id, func.count())
        .where(MessageRow.tenant_id == scope.tenant, col(MessageRow.conversation_id).in_(conversations))
        .group_by(col(MessageRow.conversation_id))
    ).all()
    return dict(rows)


def place(session: Session, scope: Scope, row: ConversationRow, parent_id: str | None) -> str | None:
    """After which message a new question goes. Raises Missing, and Conflict after an answer that is being written."""
    if parent_id is None:
        return _settled(session, scope, row)
    parent = message(session, scope, row.id, parent_id)
    if parent.role == "user":
        return parent.parent_id  # an edit: beside the message it replaces
    if parent.state == "running":
        raise Conflict("That answer is still being written. Wait for it, or stop it first.", code="answer_running")
    return parent.id


def _settled(session: Session, scope: Scope, row: ConversationRow) -> str | None:
    """The visible branch's end, or the last message before the answers that are still being written."""
    at = row.head_id
    while at is not None:
        head = message(session, scope, row.id, at)
        if head.role == "assistant" and head.state != "running":
            return head.id
        at = head.parent_id
    return None


def request_key(scope: Scope, key: str | None) -> str | None:
    """An idempotency key is its sender's own; others may use the same."""
    return f"{scope.user or ''}/{key}" if key else None


def asked(session: Session, scope: Scope, key: str | None) -> tuple[MessageRow, MessageRow] | None:
    """(question, its first answer) that this key asked before."""
    if key is None:
        return None
    mine = MessageRow.tenant_id == scope.tenant
    question = session.exec(select(MessageRow).where(mine, MessageRow.request_key == request_key(scope, key))).first()
    if question is None:
        return None
    answers = select(MessageRow).where(mine, MessageRow.parent_id == question.id, MessageRow.role == "assistant")
    answer = session.exec(answers.order_by(col(MessageRow.id)).limit(1)).first()
    return (question, answer) if answer is not None else None


def question_of(
    session: Session, scope: Scope, conversation_id: str, message_id: str
) -> tuple[MessageRow, MessageRow | None]:
    """(the user's message, the answer named): what a regeneration answers again."""
    named = message(session, scope, conversation_id, message_id)
    if named.role == "user":
        return named, None
    if named.parent_id is None:
        raise Invalid("That message answers nothing, so it cannot be written again.", code="no_question")
    return message(session, scope, conversation_id, named.parent_id), named


def history(session: Session, scope: Scope, conversation_id: str, leaf_id: str | None) -> tuple[list[Turn], int]:
    """The branch that ends with `leaf_id`, oldest first, its last HISTORY_MESSAGES; and how many came before them."""
    if leaf_id is None:
        return [], 0
    links = dict(
        session.exec(
            select(MessageRow.id, MessageRow.parent_id).where(
                MessageRow.tenant_id == scope.tenant, MessageRow.conversation_id == conversation_id
            )
        ).all()
    )
    branch: list[str] = []
    at: str | None = leaf_id
    while at is not None and at in links and len(branch) < MAX_MESSAGES:
        branch.append(at)
        at = links[at]
    kept = branch[:HISTORY_MESSAGES]
    rows = session.exec(select(MessageRow).where(MessageRow.tenant_id == scope.tenant, col(MessageRow.id).in_(kept)))
    found = {row.id: row for row in rows}
    turns = [Turn(cast("Role", found[each].role), found[each].content) for each in reversed(kept) if each in found]
    return [turn for turn in turns if turn.content], len(branch) - len(kept)


# -- an answer's life


def begun(session: Session, scope: Scope, message_id: str) -> tuple[MessageRow, ConversationRow, MessageRow] | None:
    """(answer, conversation, question); None when it was deleted."""
    row = _answer(session, scope, message_id)
    if row is None or row.parent_id is None:
        return None
    owner = conversation(session, scope, row.conversation_id)
    return row, owner, message(session, scope, row.conversation_id, row.parent_id)


def is_blank(row: MessageRow) -> bool:
    """Whether nothing of an answer is written yet, as when it was asked for."""
    kept = (row.error, row.sources, row.usage, row.cached_at)
    return row.state == "running" and not row.content and kept == (None, None, None, None)


def blank(session: Session, scope: Scope, message_id: str) -> None:
    """It is written from its beginning. Nothing when it was deleted meanwhile."""
    row = _answer(session, scope, message_id)
    if row is None:
        return
    row.state, row.error, row.content, row.sources, row.usage = "running", None, "", None, None
    row.cached_at = None
    session.add(row)


def rewrite(session: Session, scope: Scope, message_id: str) -> None:
    """The answer will be written again. Raises Missing when it was deleted."""
    row = _answer(session, scope, message_id)
    if row is None:
        raise Missing("The answer this job wrote has been deleted.", code="message_missing")
    row.state, row.error = "running", None
    session.add(row)


def finish(session: Session, scope: Scope, message_id: str, **values: Any) -> None:
    """The answer's last words. Nothing when it was deleted meanwhile."""
    row = _answer(session, scope, message_id)
    if row is None:
        return
    for name, value in values.items():
        setattr(row, name, value)
    session.add(row)
    session.exec(
        update(ConversationRow)
        .where(col(ConversationRow.id) == row.conversation_id, col(ConversationRow.tenant_id) == scope.tenant)
        .values(updated_at=now())
    )


def seen(session: Session, scope: Scope, job_id: str) -> tuple[str, list[dict[str, Any]]]:
    """(text, candidate sources) as a client that followed the job's events has them now."""
    rows = session.exec(
        select(JobEventRow.type, JobEventRow.data)
        .where(
            JobEventRow.tenant_id == scope.tenant,
            JobEventRow.job_id == job_id,
            col(JobEventRow.type).in_(("reset", "sources", "text", "answer")),
        )
        .order_by(col(JobEventRow.attempt), col(JobEventRow.seq))
    ).all()
    text: list[str] = []
    sources: list[dict[str, Any]] = []
    for type, data in rows:
        match type:
            case "reset":
                text, sources = [], []
            case "sources":
                sources = json.loads(data)["sources"]
            case "text":
                text.append(json.loads(data)["text"])
            case _:
                answer = json.loads(data)
                text, sources = [answer["content"]], answer["sources"]
    return "".join(text), sources


def _answer(session: Session, scope: Scope, message_id: str) -> MessageRow | None:
    return session.exec(
        select(MessageRow).where(
            MessageRow.id == message_id, MessageRow.tenant_id == scope.tenant, MessageRow.role == "assistant"
        )
    ).one_or_none()
