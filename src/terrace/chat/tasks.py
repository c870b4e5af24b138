"""The job that writes an answer. Whoever asked may leave: the job goes on, and its events can be followed again."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any

from sqlmodel import Session

from terrace.accounts.limits.base import Limits
from terrace.accounts.limits.unlimited import Unlimited
from terrace.chat import store
from terrace.chat.answering import Answered, Answering, Prepared, Reasoning, Text
from terrace.chat.base import GENERATE, Retrieval, Turn
from terrace.chat.cache.base import Asking, Found, Place
from terrace.chat.cache.service import AnswerCache
from terrace.chat.tables import ConversationRow, MessageRow
from terrace.errors import Internal, TerraceError
from terrace.jobs.base import Context, Done, Job, JobKind
from terrace.knowledge.base import Filter
from terrace.knowledge.citations import numbers_cited
from terrace.models.base import Usage
from terrace.storage import Database, after_commit
from terrace.types import JSONObject, Scope, moment

GROUP_SECONDS = 0.03  # text of this long goes into one event
TIMEOUT = 1800.0


def kinds(
    database: Database, answering: Answering, limits: Limits | None = None, cache: AnswerCache | None = None
) -> tuple[JobKind, ...]:
    """What assembly registers. What `limits` keep for a job is given back when it is over."""
    kept: Limits = limits or Unlimited()

    async def generate(context: Context) -> Done | dict[str, Any]:
        try:
            return await Generation(database, context, answering, cache).run()
        finally:
            kept.release(context.job_id)

    def ended(session: Session, scope: Scope, job: Job) -> None:
        after_commit(session, lambda: kept.release(job.id))
        keep_shown(session, scope, job)

    return (
        # A model's failure is told at once, with what was shown; whoever asked may ask again. Only a crash repeats it.
        JobKind(GENERATE, generate, timeout=TIMEOUT, max_failures=1, on_end=ended, on_retry=again),
    )


class Generation:
    """One attempt at one answer."""

    def __init__(
        self, database: Database, context: Context, answering: Answering, cache: AnswerCache | None = None
    ) -> None:
        self._database = database
        self._context = context
        self._cache = cache
        self._place: Place | None = None  # where the cache keeps the answer
        walls = context.payload.get("models", ())
        self._scope = replace(context.scope, models=tuple(frozenset(wall) for wall in walls))
        self._answering = answering
        self._text = Grouped(lambda text: context.emit("text", {"text": text}))
        self._reasoning = Grouped(lambda text: context.emit("reasoning", {"text": text}))
        self._started = time.monotonic()
        self._first_token: float | None = None

    async def run(self) -> Done | dict[str, Any]:
        begun = await self._database.read(self._begun)
        if begun is None:
            return {"deleted": True}
        message, conversation, question, history, dropped = begun
        if not store.is_blank(message):  # a first attempt finds it so, and need not wait for other writers
            await self._context.write(lambda session: store.blank(session, self._context.scope, message.id))
        start = {
            "conversation_id": conversation.id,
            "user_message_id": message.parent_id,
            "message_id": message.id,
            "model": message.model,
            "title": conversation.title,
        }
        self._context.emit("start", start)
        if (found := await self._look(message, question, history, dropped)) is not None:
            return self._given(start, message.id, found)
        try:
            prepared = await self._prepare(message, question, history, dropped)
            answered = await self._stream(prepared)
        except Exception as error:
            self._flush()
            told = error if isinstance(error, TerraceError) else Internal("Writing the answer failed on our side.")
            self._context.emit("error", {"kind": told.kind, "code": told.code, "message": told.message})
            raise
        finally:
            self._text.drop()
            self._reasoning.drop()
        return self._done(start, message.id, answered)

    def _begun(self, session: Session) -> tuple[MessageRow, ConversationRow, str, list[Turn], int] | None:
        scope = self._context.scope
        begun = store.begun(session, scope, self._context.payload["message_id"])
        if begun is None:
            return None
        message, conversation, question = begun
        history, dropped = store.history(session, scope, conversation.id, question.parent_id)
        return message, conversation, question.content, history, dropped

    async def _look(self, message: MessageRow, question: str, history: list[Turn], dropped: int) -> Found | None:
        """An answer given before, where whoever asked takes one."""
        options = message.options or {}
        if self._cache is None or not options.get("cache") or dropped:
            return None
        asking = asking_of(question, message.model or "auto", options, history)
        self._place, found = await self._cache.look(self._scope, asking, renew=bool(options.get("renew")))
        return found

    def _given(self, start: dict[str, Any], message_id: str, found: Found) -> Done:
        """The answer as it was written, at once; nothing is asked and nothing used."""
        answer, sources = found.answer, found.answer.sources
        usage = self._usage(Usage(0, 0))
        cached: dict[str, Any] = {"cached": True, "cached_at": moment(found.written_at).isoformat()}
        told = {"content": answer.response, "sources": sources, "usage": usage, "finish_reason": "stop", **cached}
        self._context.emit("sources", {"sources": sources})
        self._context.emit("text", {"text": answer.response})
        self._context.emit("answer", told)

        def commit(session: Session) -> None:
            store.finish(
                session, self._context.scope, message_id,
                state="complete", content=answer.response, sources=sources, usage=usage, model=answer.model,
                cached_at=found.written_at,
            )  # fmt: skip
            if self._cache is not None:
                self._cache.given(session, self._context.scope, found)

        return Done(_result(start, message_id, answer.response, sources, answer.model, usage, "stop") | cached, commit)

    def _kept(self, answered: Answered, sources: list[dict[str, Any]]) -> Callable[[Session], None]:
        """Puts a whole answer of the very model that was asked in its place in the cache."""
        cache, place = self._cache, self._place
        if cache is None or place is None or answered.finish_reason != "stop" or answered.model != place.asking.model:
            return lambda session: None
        written = cache.written(answered.text, sources, answered.model, answered.usage)
        return lambda session: cache.keep(session, self._context.scope, place, written)

    async def _prepare(self, message: MessageRow, question: str, history: list[Turn], dropped: int) -> Prepared:
        options = message.options or {}
        filter = Filter(collections=tuple(options.get("collections", ())), tags=tuple(options.get("tags", ())))
        retrieval = Retrieval(options.get("use_rag"), filter, options.get("passages"))
        prepared = await self._answering.prepare(
            self._scope, message.model or "auto", question, history, retrieval, dropped=dropped
        )
        self._context.emit("sources", {"sources": [source.to_json() for source in prepared.sources]})
        return prepared

    async def _stream(self, prepared: Prepared) -> Answered:
        answered: Answered | None = None
        async with aclosing(self._answering.answer(prepared)) as pieces:
            async for piece in pieces:
                match piece:
                    case Text(text):
                        self._first_token = self._first_token or time.monotonic()
                        self._reasoning.flush()
                        self._text.add(text)
                    case Reasoning(text):
                        self._text.flush()
                        self._reasoning.add(text)
                    case Answered():
                        answered = piece
        self._flush()
        if answered is None:
            raise Internal("The answer ended without its end.")
        return answered

    def _flush(self) -> None:
        self._reasoning.flush()
        self._text.flush()

    def _done(self, start: dict[str, Any], message_id: str, answered: Answered) -> Done:
        scope = self._context.scope
        sources: list[dict[str, Any]] = [dict(source.to_json()) for source in answered.sources]
        usage = self._usage(answered.usage)
        self._context.emit(
            "answer",
            {"content": answered.text, "sources": sources, "usage": usage, "finish_reason": answered.finish_reason},
        )
        result = _result(start, message_id, answered.text, sources, answered.model, usage, answered.finish_reason)
        keep = self._kept(answered, sources)

        def commit(session: Session) -> None:
            store.finish(
                session, scope, message_id,
                state="complete", content=answered.text, sources=sources, usage=usage, model=answered.model,
            )  # fmt: skip
            keep(session)

        return Done(result, commit)

    def _usage(self, usage: Usage) -> JSONObject:
        """Tokens, and seconds: to the first word shown and in all."""
        end = time.monotonic()
        return {
            **asdict(usage),
            "first_token_seconds": round((self._first_token or end) - self._started, 3),
            "seconds": round(end - self._started, 3),
        }


def asking_of(question: str, model: str, options: Mapping[str, Any], history: Sequence[Turn] = ()) -> Asking:
    """What the answer depends on; `options` as an answer's row keeps them."""
    return Asking(
        question,
        model,
        history,
        options.get("use_rag"),
        tuple(options.get("collections", ())),
        tuple(options.get("tags", ())),
        options.get("passages"),
    )


def _result(
    start: dict[str, Any],
    message_id: str,
    response: str,
    sources: list[dict[str, Any]],
    model: str,
    usage: JSONObject,
    finish_reason: str,
) -> dict[str, Any]:
    return {
        "response": response,
        "sources": sources,
        "conversation_id": start["conversation_id"],
        "message_id": message_id,
        "user_message_id": start["user_message_id"],
        "model": model,
        "usage": usage,
        "finish_reason": finish_reason,
    }


class Grouped:
    """Joins pieces that come within GROUP_SECONDS; the first goes at once."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._waiting: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, text: str) -> None:
        self._waiting.append(text)
        if self._timer is None:
            self._emit()
            self._wait()

    def flush(self) -> None:
        self._stop()
        self._emit()

    def drop(self) -> None:
        """Forget what was not sent: nobody saw it."""
        self._stop()
        self._waiting.clear()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(GROUP_SECONDS, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._waiting:
            self._emit()
            self._wait()

    def _emit(self) -> None:
        if self._waiting:
            text = "".join(self._waiting)
            self._waiting.clear()
            self._send(text)


def again(session: Session, scope: Scope, job: Job) -> None:
    """The job goes back in the queue: its answer is being written again. Raises Missing when it was deleted."""
    store.rewrite(session, scope, job.payload["message_id"])


def keep_shown(session: Session, scope: Scope, job: Job) -> None:
    """In the transaction that ends the job as failed or cancelled: the answer keeps exactly what its events showed."""
    text, candidates = store.seen(session, scope, job.id)
    by_number = {source["n"]: source for source in candidates}
    error = None if job.error is None else asdict(job.error)
    store.finish(
        session, scope, job.payload["message_id"],
        state="stopped" if job.state == "cancelled" else "failed",
        content=text,
        sources=[by_number[number] for number in numbers_cited(text) if number in by_number],
        error=None if job.state == "cancelled" else error,
    )  # fmt: skip
