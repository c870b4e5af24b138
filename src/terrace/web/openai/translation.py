"""For models that do not speak OpenAI's form, and for answers from documents: a request in, deltas out, OpenAI's words
back."""

from collections.abc import Sequence
from typing import Any

from terrace.errors import Invalid, Missing, Unavailable
from terrace.models.base import ChatRequest
from terrace.web.openai.base import Answerer, Limits, Models, RAGAnswer, Running
from terrace.web.openai.chunks import Chunks, Form, Whole
from terrace.web.openai.request import Fields, Request, typed_field

RAG = "rag"
MAX_MESSAGES = 10_000
OWN_FIELDS = frozenset({"model", "messages", "prompt", "stream", "stream_options", "n", "echo", "best_of"})

Messages = list[dict[str, Any]]


class Translation:
    def __init__(self, models: Models, answerer: Answerer | None, limits: Limits, max_answer_bytes: int) -> None:
        self._models = models
        self._answerer = answerer
        self._limits = limits
        self._max_answer_bytes = max_answer_bytes

    async def begin(self, request: Request, fields: Fields, model: str, form: Form) -> Running | RAGAnswer:
        """The deltas of an answer. Raises Invalid for fields that are not OpenAI's, Limited for a request too many."""
        messages = messages_of(fields) if form == "chat" else prompt_of(fields)
        options = _options(fields)
        if (collections := rag_collections(model)) is None:
            requests = 0 if request.counted else 1  # the call itself is metered by the model room
            return self._models.stream(
                ChatRequest(model, messages, options, scope=request.owner, patience=request.patience, requests=requests)
            )
        if self._answerer is None:
            raise Missing("Answers from documents are not served here.", code="model_unknown", param="model")
        # one request, however many models it takes to answer it
        await self._limits.count_waiting(request.owner, request.patience)
        return self._answerer.answer(request.owner, messages, options, collections)

    async def run(
        self, request: Request, fields: Fields, model: str, form: Form, *, stream: bool, wants_usage: bool
    ) -> None:
        answer = await self.begin(request, fields, model, form)
        try:
            if stream:
                await self._stream(request, answer, model, form, wants_usage)
            else:
                whole = Whole(form)
                async for delta in answer:
                    whole.add(delta)
                await request.answer(whole.encode(_answering(answer, model)))
        finally:
            await answer.aclose()

    async def _stream(
        self, request: Request, answer: Running | RAGAnswer, model: str, form: Form, wants_usage: bool
    ) -> None:
        chunks: Chunks | None = None
        left = self._max_answer_bytes
        async for delta in answer:
            if chunks is None:  # only now is it certain who answers
                chunks = Chunks(form, _answering(answer, model), wants_usage=wants_usage)
            for event in chunks.events(delta):
                left -= len(event)
                await request.piece(event)
            if left < 0:
                raise Unavailable("The answer grew too long and was cut.", code="upstream_too_large")
        await request.end()


def rag_collections(model: str) -> Sequence[str] | None:
    """`rag` means every collection, `rag:<one>` or `rag:<one>,<other>` those; None when the model is another."""
    name, colon, rest = model.partition(":")
    if name != RAG:
        return None
    collections = [each.strip() for each in rest.split(",") if each.strip()]
    if colon and not collections:
        raise Invalid("Name a collection after `rag:`, or say `rag` for all.", code="invalid_parameter", param="model")
    return collections


def messages_of(fields: Fields) -> Messages:
    messages: Messages | None = typed_field(fields, "messages", Messages, "a list of objects with `role` and `content`")
    if not messages or len(messages) > MAX_MESSAGES:
        raise Invalid(
            f"`messages` is required and holds from 1 to {MAX_MESSAGES:,} messages.",
            code="invalid_parameter",
            param="messages",
        )
    for position, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise Invalid(
                f"`messages[{position}].role` is required and must be a string.",
                code="invalid_parameter",
                param=f"messages[{position}].role",
            )
        if not isinstance(message.get("content"), str | list | None):
            raise Invalid(
                f"`messages[{position}].content` must be a string or a list of parts.",
                code="invalid_parameter",
                param=f"messages[{position}].content",
            )
    return messages


def prompt_of(fields: Fields) -> Messages:
    """A legacy prompt as the user's message."""
    for name, plain in (("echo", False), ("best_of", 1), ("suffix", ""), ("logprobs", 0)):
        value = typed_field(fields, name, int | str, "a number, true or false")
        if value not in (None, plain):
            raise Invalid(f"This model does not support `{name}`.", code="unsupported_parameter", param=name)
    prompt = typed_field(fields, "prompt", str | list[str], "a string; this model takes no token numbers")
    texts = [prompt] if isinstance(prompt, str) else prompt or []
    if len(texts) != 1:
        raise Invalid("`prompt` is required and must be one string.", code="invalid_parameter", param="prompt")
    return [{"role": "user", "content": texts[0]}]


def _options(fields: Fields) -> dict[str, Any]:
    return {name: typed_field(fields, name, Any, "valid JSON") for name in fields if name not in OWN_FIELDS}


def _answering(answer: Running | RAGAnswer, asked: str) -> str:
    return getattr(answer, "model", asked)
