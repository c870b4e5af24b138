"""One message: what is looked up for it, what the model is asked, and what is kept of its answer."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from terrace.campaigns.runs.base import Options, Retriever, Writers
from terrace.campaigns.templates.drafts import Compiled
from terrace.campaigns.templates.language import KNOWLEDGE
from terrace.campaigns.templates.rendering import Values, fill, prompt, rules, unfenced
from terrace.errors import Invalid, Unavailable
from terrace.knowledge.base import Filter, Hit
from terrace.knowledge.citations import Source, candidates, check, without_marks
from terrace.models.base import ChatRequest, Passage, TextDelta
from terrace.models.tokens import estimate_messages
from terrace.types import Scope

MAX_ANSWER_CHARS = 150_000
LONG = 8_000  # characters of a prompt that may be more than a small model reads
CONTEXT_TOKENS = 8192  # where nobody says what a model reads


@dataclass(frozen=True, slots=True)
class Brief:
    """What all messages of a campaign have in common."""

    campaign_id: str
    compiled: Compiled
    model: str
    options: Options
    collection: str | None
    code: str
    walls: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Ready to be asked; without a request the text is the message."""

    request: ChatRequest | None
    text: str
    sources: tuple[Source, ...] = ()
    hits: Sequence[Hit] = ()


@dataclass(frozen=True, slots=True)
class Written:
    text: str
    sources: list[dict[str, Any]]
    model: str | None


class Writer:
    def __init__(self, models: Writers, retriever: Retriever, passages: int) -> None:
        self._models = models
        self._retriever = retriever
        self._passages = passages

    async def prepare(self, scope: Scope, brief: Brief, values: Values) -> Prepared:
        """Look up what the template wants to know and put the values in; asks no model. Raises Invalid, Missing (the
        collection), Unavailable."""
        compiled = brief.compiled
        hits: Sequence[Hit] = ()
        if KNOWLEDGE in compiled.body.names:
            hits = await self._found(scope, brief, values)
        sources = candidates(hits)
        passages = tuple(
            Passage(source.n, source.title or source.document_name, source.chunk_text, source.score)
            for source in sources
        )
        values = replace(values, passages=passages)
        if compiled.draft.mode == "fill":
            return Prepared(None, fill(compiled.body, values), sources, hits)
        system = rules(brief.code, cites=bool(passages))
        if compiled.draft.system.strip():
            system += "\n\n" + compiled.draft.system.strip()
        text = prompt(compiled.body, values, brief.code)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        request = ChatRequest(
            brief.model, messages, _options(brief.options), passages, replace(scope, models=brief.walls)
        )
        if len(system) + len(text) > LONG:
            await self._check_length(request, brief.options)
        return Prepared(request, text, sources, hits)

    async def write(self, scope: Scope, brief: Brief, prepared: Prepared) -> Written:
        """Raises what the model room raises, and Unavailable (`empty_answer`) when the model says nothing."""
        if prepared.request is None:
            return Written(prepared.text.strip(), _told(prepared.sources, prepared.sources), None)
        answer = self._models.stream(prepared.request)
        async with aclosing(answer):
            pieces = [delta.text async for delta in answer if isinstance(delta, TextDelta)]
        said = unfenced(_storable("".join(pieces))[:MAX_ANSWER_CHARS], brief.code)
        if prepared.sources:
            pages = await self._retriever.pages(scope, prepared.hits)
            checked = check(said, prepared.sources, pages)
            text = checked.text if brief.options.marks else without_marks(checked.text)
            told = _told(prepared.sources, checked.sources)
        else:
            text, told = said, []
        if not text.strip():
            raise Unavailable("The model wrote nothing.", code="empty_answer")
        return Written(text.strip(), told, answer.model)

    async def _found(self, scope: Scope, brief: Brief, values: Values) -> Sequence[Hit]:
        query = " ".join(fill(brief.compiled.query, values).split())
        if not query:
            return ()
        filter = Filter(collections=(brief.collection,) if brief.collection else ())
        return await self._retriever.search(scope, query, k=self._passages, filter=filter)

    async def _check_length(self, request: ChatRequest, options: Options) -> None:
        room = await self._models.context_tokens(request.model, request.scope) or CONTEXT_TOKENS
        asked = estimate_messages(request.messages)
        if asked + min(options.max_tokens, room // 2) > room:
            raise Invalid(
                f"With this contact's values the prompt has about {asked:,} tokens, and the model reads {room:,} with "
                "its answer. Shorten the template or the values.",
                code="message_too_long",
            )


def _options(options: Options) -> dict[str, Any]:
    given: dict[str, Any] = {"max_tokens": options.max_tokens}
    if options.temperature is not None:
        given["temperature"] = options.temperature
    return given


def _told(given: Sequence[Source], cited: Sequence[Source]) -> list[dict[str, Any]]:
    """Every source that was given, those cited with their spans."""
    shown = {source.n: source for source in given} | {source.n: source for source in cited}
    numbers = {source.n for source in cited}
    return [{**source.to_json(), "cited": source.n in numbers} for source in shown.values()]


def _storable(text: str) -> str:
    """Without NUL (PostgreSQL keeps none) and halves of surrogate pairs (UTF-8 cannot spell them)."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")
