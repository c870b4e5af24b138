"""Conversations: ask, ask again, branch, find, rename, export, delete."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from sqlmodel import Session

from terrace import settings
from terrace.accounts.limits.base import Hold, Limits
from terrace.accounts.limits.unlimited import Unlimited
from terrace.chat import store
from terrace.chat.base import GENERATE, Answers, Ask, Choice, Conversation, Message, Started
from terrace.chat.cache.base import Asking
from terrace.chat.cache.service import AnswerCache
from terrace.chat.export import as_json, as_markdown, branch
from terrace.chat.tables import ConversationRow, MessageRow
from terrace.chat.text import storable
from terrace.errors import Conflict, Invalid, Missing, bad_cursor
from terrace.jobs.base import Jobs
from terrace.models.tokens import bound
from terrace.storage import Database, after_commit
from terrace.telemetry.calls import Demand
from terrace.types import Scope, new_id, now

__all__ = ["Ask", "Chat", "Conversation", "Message", "Started"]

PRIORITY = 100  # somebody is waiting
TITLE_CHARS = 60
MAX_LIMIT = 200
MAX_QUERY = 500
MAX_FILTERS = 100
MAX_NAME = 200
UNTITLED = "New conversation"
RULES_TOKENS = 500  # of the instructions around a question, about
PASSAGE_TOKENS = 320  # of a passage with what marks it as data, about


class Chat:
    """`limits` keeps room for each answer before it is asked for, so that who has none left hears at once; for one that
    the `cache` has there is nothing to keep."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        models: Answers,
        options: settings.Chat,
        limits: Limits | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self._cache = cache
        self._limits: Limits = limits or Unlimited()
        self._database = database
        self._jobs = jobs
        self._models = models
        self._options = options

    async def ask(self, scope: Scope, ask: Ask) -> Started:
        """Keep the question, its answer to be, and the job that writes it, all or nothing.

        Raises Invalid (empty, too long, unknown model), Missing (conversation, parent), Conflict (full; parent is
        being written), Denied (a model they may not use), Limited (no room under their limits, too many waiting jobs).
        """
        text = self._checked(ask)
        if (known := await self._database.read(store.asked, scope, ask.key)) is not None:
            return _asked_before(text, *known)
        choice = await self._models.resolve(ask.model, scope)
        free = await self._is_known(scope, ask, text, choice.id)
        async with self._held(scope, choice, text, ask, Unlimited() if free else self._limits) as hold:
            return await self._database.write(self._ask, scope, ask, text, choice.id, hold)

    async def regenerate(
        self, scope: Scope, conversation_id: str, message_id: str, model: str | None = None
    ) -> Started:
        """Another answer beside the one named (or to the user's message named), asked for in the same way."""
        choice = await self._models.resolve(model, scope)
        async with self._held(scope, choice) as hold:
            return await self._database.write(
                self._regenerate, scope, conversation_id, message_id, model, choice.id, hold
            )

    async def list(
        self, scope: Scope, *, q: str = "", limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Conversation], str | None]:
        """Latest first, and the cursor of the next page. `q`: words in the title or in one message."""
        if not 1 <= limit <= MAX_LIMIT:
            raise Invalid(f"limit must be between 1 and {MAX_LIMIT}.", code="bad_limit")
        if len(q) > MAX_QUERY:
            raise Invalid(f"A search takes at most {MAX_QUERY} characters.", code="bad_query")
        words = storable(q).split()[: store.SEARCH_WORDS]
        rows = await self._database.read(store.page, scope, words, limit, _position(cursor))
        following = _cursor(*rows[limit - 1]) if len(rows) > limit else None
        return [conversation for _, conversation in rows[:limit]], following

    async def create(self, scope: Scope, title: str = "") -> Conversation:
        name = _title(title) if title.strip() else UNTITLED
        return await self._database.write(lambda session: store.told(store.create(session, scope, name), 0))

    async def get(self, scope: Scope, conversation_id: str) -> tuple[Conversation, "list_[Message]"]:
        """With the messages of every branch, oldest first. Raises Missing."""

        def work(session: Session) -> tuple[Conversation, list_[Message]]:
            row = store.conversation(session, scope, conversation_id)
            found = store.messages(session, scope, conversation_id)
            return store.told(row, len(found)), found

        return await self._database.read(work)

    async def change(
        self, scope: Scope, conversation_id: str, *, title: str | None = None, head_id: str | None = None
    ) -> Conversation:
        """Rename, or show another branch. Raises Missing, Invalid."""
        name = None if title is None else _title(title)
        return await self._database.write(store.change, scope, conversation_id, name, head_id)

    async def delete(self, scope: Scope, conversation_id: str) -> None:
        """With its messages; answers being written are stopped. Raises Missing."""
        for job_id in await self._database.write(store.remove, scope, conversation_id):
            try:
                await self._jobs.cancel(scope, job_id)
            except (Missing, Conflict):
                continue  # it ended by itself

    async def export(self, scope: Scope, conversation_id: str, format: str) -> tuple[str, str]:
        """(title, text): `md` the visible branch, `json` everything."""
        conversation, messages = await self.get(scope, conversation_id)
        if format == "json":
            return conversation.title, as_json(conversation, messages)
        if format != "md":
            raise Invalid("A conversation is exported as md or json.", code="bad_format")
        return conversation.title, as_markdown(conversation, branch(messages, conversation.head_id))

    async def _is_known(self, scope: Scope, ask: Ask, text: str, model: str) -> bool:
        """Whether a first question has its answer in the cache. Should it be gone when its job looks, that job waits
        for room like any other."""
        if self._cache is None or not ask.cache or ask.conversation_id is not None:
            return False
        asking = Asking(text, model, (), ask.use_rag, ask.collections, ask.tags, ask.passages)
        return await self._cache.knows(scope, asking)

    @asynccontextmanager
    async def _held(
        self, scope: Scope, choice: Choice, text: str = "", ask: Ask | None = None, limits: Limits | None = None
    ) -> AsyncIterator[Hold]:
        """Room for an answer, until its job has it. Raises Limited, Denied."""
        passages = 0 if ask is not None and ask.use_rag is False else (ask and ask.passages) or self._options.passages
        expected = bound(text.encode()) + RULES_TOKENS + passages * PASSAGE_TOKENS
        hold = await (limits or self._limits).hold_waiting(
            scope, Demand(choice.provider.name, choice.kind, choice.model, "chat", expected)
        )
        try:
            yield hold
        except BaseException:
            hold.release()
            raise

    # -- in a transaction

    def _ask(self, session: Session, scope: Scope, ask: Ask, text: str, model: str, hold: Hold) -> Started:
        if (known := store.asked(session, scope, ask.key)) is not None:
            after_commit(session, hold.release)
            return _asked_before(text, *known)
        answer_id = new_id("msg")
        if ask.conversation_id is None:
            if ask.parent_id is not None:
                raise Invalid("parent_id needs the conversation_id it belongs to.", code="parent_without_conversation")
            conversation = store.create(session, scope, _first_words(text), ask.kind, head_id=answer_id)
            parent = None
        else:
            conversation = store.conversation(session, scope, ask.conversation_id)
            parent = store.place(session, scope, conversation, ask.parent_id)
            store.check_room(session, scope, conversation.id, 2)
            if conversation.head_id is None and conversation.title == UNTITLED:
                conversation.title = _first_words(text)
        question = store.add(
            session, scope, conversation.id, parent, "user", content=text, state="complete",
            request_key=store.request_key(scope, ask.key),
        )  # fmt: skip
        options = {key: value for key, value in asdict(ask).items() if key in _KEPT and value not in (None, ())}
        return self._start(session, scope, conversation, question, answer_id, model, options, hold)

    def _regenerate(
        self,
        session: Session,
        scope: Scope,
        conversation_id: str,
        message_id: str,
        wanted: str | None,
        default: str,
        hold: Hold,
    ) -> Started:
        conversation = store.conversation(session, scope, conversation_id)
        question, answer = store.question_of(session, scope, conversation_id, message_id)
        chosen = default if wanted or answer is None or answer.model is None else answer.model
        options = (answer.options if answer else None) or {}
        if options.get("cache"):  # whoever asks again wants another answer, which then serves in the place of this one
            options = {**options, "renew": True}
        store.check_room(session, scope, conversation_id, 1)
        return self._start(session, scope, conversation, question, new_id("msg"), chosen, options, hold)

    def _start(
        self,
        session: Session,
        scope: Scope,
        conversation: ConversationRow,
        question: MessageRow,
        answer_id: str,
        model: str,
        options: "dict[str, object]",
        hold: Hold,
    ) -> Started:
        payload: dict[str, Any] = {"conversation_id": conversation.id, "message_id": answer_id}
        if scope.models:  # the job is held to what whoever asked may use
            payload["models"] = [sorted(wall) for wall in scope.models]
        job_id = self._jobs.enqueue(session, scope, GENERATE, payload, priority=PRIORITY)
        after_commit(session, lambda: hold.bind(job_id))
        store.add(
            session, scope, conversation.id, question.id, "assistant",
            id=answer_id, content="", state="running", model=model, options=options, job_id=job_id,
        )  # fmt: skip
        if conversation.head_id != answer_id:
            conversation.head_id, conversation.updated_at = answer_id, now()
            session.add(conversation)
        session.flush()
        return Started(conversation.id, question.id, answer_id, job_id, model)

    def _checked(self, ask: Ask) -> str:
        text = storable(ask.message).strip()
        if not text:
            raise Invalid("The message is empty.", code="message_empty")
        if len(text) > self._options.max_message_chars:
            raise Invalid(
                f"A message takes at most {self._options.max_message_chars:,} characters; this one has {len(text):,}. "
                "Upload long text as a document instead.",
                code="message_too_long",
                status=413,
            )
        if ask.passages is not None and not 1 <= ask.passages <= 50:
            raise Invalid("passages must be between 1 and 50.", code="bad_passages")
        filters = (*ask.collections, *ask.tags)
        if len(filters) > MAX_FILTERS or any(
            not 0 < len(name) <= MAX_NAME or storable(name) != name for name in filters
        ):
            raise Invalid(
                f"At most {MAX_FILTERS} collections and tags, of 1 to {MAX_NAME} characters.", code="bad_filter"
            )
        return text


def _asked_before(text: str, question: MessageRow, answer: MessageRow) -> Started:
    if question.content != text:
        raise Conflict("This Idempotency-Key asked another question before. Take a new one.", code="key_reused")
    return Started(question.conversation_id, question.id, answer.id, answer.job_id or "", answer.model or "")


list_ = list  # `Chat.list` hides the builtin inside the class
_KEPT = frozenset({"use_rag", "collections", "tags", "passages", "cache"})


def _title(title: str) -> str:
    name = " ".join(storable(title).split())
    if not name or len(name) > store.MAX_TITLE:
        raise Invalid(f"A title has 1 to {store.MAX_TITLE} characters.", code="bad_title")
    return name


def _first_words(text: str) -> str:
    """A title out of a message: its beginning, cut at a word."""
    line = " ".join(text[: TITLE_CHARS * 10].split())
    if len(line) <= TITLE_CHARS:
        return line
    cut = line.rfind(" ", TITLE_CHARS // 2, TITLE_CHARS)
    return line[: cut if cut > 0 else TITLE_CHARS - 1].rstrip(" ,;:.-–") + "…"


def _cursor(changed: float, last: Conversation) -> str:
    return urlsafe_b64encode(f"{changed!r} {last.id}".encode()).decode().rstrip("=")


def _position(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    try:
        text = urlsafe_b64decode(cursor[:200] + "=" * (-len(cursor[:200]) % 4)).decode()
        at, _, conversation_id = text.partition(" ")
        return float(at), conversation_id
    except (ValueError, binascii.Error, UnicodeDecodeError) as error:
        raise bad_cursor() from error
