"""One answer: find passages, ask the model, check its citations as they stream. Kept by nobody here."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from terrace import settings
from terrace.chat import prompt
from terrace.chat.base import Answers, Retrieval, Retriever, Turn
from terrace.chat.followup import search_query
from terrace.chat.text import storable
from terrace.errors import Unavailable
from terrace.knowledge.base import Filter, Hit, Page
from terrace.knowledge.citations import Checker, Source, candidates
from terrace.models.base import ChatRequest, Finish, FinishReason, Passage, ReasoningDelta, TextDelta, Usage
from terrace.models.tokens import estimate, estimate_messages
from terrace.types import Scope

MAX_ANSWER_CHARS = 150_000  # an answer must fit a job's result and one event
MAX_REASONING_CHARS = 300_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to be sent, and the sources it may cite."""

    request: ChatRequest
    sources: tuple[Source, ...]
    pages: Mapping[str, Sequence[Page]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer, its marks checked; the pieces joined are the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The end: the whole answer, the sources it cites, in order of first citation."""

    text: str
    sources: tuple[Source, ...]
    usage: Usage
    finish_reason: FinishReason
    model: str


Piece = Text | Reasoning | Answered


class Answering:
    def __init__(self, models: Answers, retriever: Retriever, options: settings.Chat) -> None:
        self._models = models
        self._retriever = retriever
        self._options = options

    async def prepare(
        self,
        scope: Scope,
        model: str,
        question: str,
        history: Sequence[Turn] = (),
        retrieval: Retrieval | None = None,
        *,
        dropped: int = 0,
        instructions: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> Prepared:
        """Search and build the prompt. Raises Invalid, Missing (collection), Unavailable."""
        wanted = retrieval or Retrieval()
        searched = wanted.use
        if searched is None:  # whoever names a collection means to search, and hears when it isn't there
            searched = wanted.filter != Filter() or await self._retriever.has_documents(scope)
        hits: Sequence[Hit] = ()
        if searched:
            query = search_query(question, history)
            count = wanted.passages or self._options.passages
            hits = await self._retriever.search(scope, query, k=count, filter=wanted.filter)
        built = prompt.build(
            question,
            history,
            candidates(hits),
            searched=searched,
            context_tokens=await self._models.context_tokens(model, scope) or self._options.context_tokens,
            answer_tokens=self._options.answer_tokens,
            dropped=dropped,
            instructions=instructions,
        )
        passages = tuple(
            Passage(source.n, source.title or source.document_name, source.chunk_text, source.score)
            for source in built.sources
        )
        request = ChatRequest(model, built.messages, dict(options or {}), passages, scope)
        pages = await self._retriever.pages(scope, hits) if hits else {}
        return Prepared(request, built.sources, pages)

    async def answer(self, prepared: Prepared) -> AsyncGenerator[Piece, None]:
        """Text and reasoning as they come, then `Answered`. Closing it stops the model.

        Raises Unavailable with code `empty_answer` when the model says nothing, and what the model room raises.
        """
        checker = Checker(prepared.sources, prepared.pages)
        usage: Usage | None = None
        reason: FinishReason = "stop"
        said = thought = 0
        answer = self._models.stream(prepared.request)
        async with aclosing(answer):
            async for delta in answer:
                match delta:
                    case TextDelta(text):
                        text = storable(text)
                        room = MAX_ANSWER_CHARS - said
                        said += len(text)
                        if shown := checker.feed(text[:room]):
                            yield Text(shown)
                        if len(text) > room:
                            reason = "length"
                            break
                    case ReasoningDelta(text):
                        if thought < MAX_REASONING_CHARS:
                            yield Reasoning(storable(text))
                        thought += len(text)
                    case Usage():
                        usage = delta
                    case Finish():
                        reason = delta.reason
        if shown := checker.finish():
            yield Text(shown)
        checked = checker.checked()
        if not checked.text.strip():
            raise Unavailable(
                "The model gave an empty answer. Ask again, or choose another model.", code="empty_answer"
            )
        counted = usage or Usage(estimate_messages(prepared.request.messages), estimate(checked.text), estimated=True)
        yield Answered(checked.text, checked.sources, counted, reason, answer.model)
