"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp, LM Studio, Groq, OpenRouter and the rest.

Servers differ in what they leave out. Usage may be missing, come early or come with every piece; `[DONE]` may never
come; some stop at a finish reason, some send pieces that are no JSON. Only an answer that ends without a finish reason
and without `[DONE]` counts as broken off.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import msgspec

from terrace.errors import Invalid, TerraceError
from terrace.models.base import (
    ChatRequest,
    Delta,
    Embeddings,
    FinishReason,
    ModelInfo,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from terrace.models.decoding import decode
from terrace.models.names import is_chat, is_embedding, sees
from terrace.models.providers.ending import Ending, joined
from terrace.models.providers.parts import count, dicts
from terrace.models.providers.upstream import Upstream
from terrace.models.sse import Parser
from terrace.models.tokens import estimate
from terrace.models.transport.base import Response

CHAT_PATH = "/chat/completions"
MAX_NONSENSE = 100  # pieces that are no JSON, before we give up on a server that sends nothing else
GRACE_SECONDS = 5.0  # after the finish reason, for the usage and [DONE] that should follow

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class OpenAI:
    def __init__(self, name: str, upstream: Upstream) -> None:
        self._name = name
        self.upstream = upstream
        self._new_limit = urlsplit(upstream.base_url).hostname == "api.openai.com"
        self._asks_usage = True

    @property
    def name(self) -> str:
        return self._name

    async def models(self) -> list[ModelInfo]:
        answer = await self.upstream.json("GET", "/models")
        listed = answer.get("data", answer.get("models"))
        if not isinstance(listed, list):
            raise self.upstream.nonsense("it lists no models")
        infos = (self._info(each) for each in listed if isinstance(each, dict) and isinstance(each.get("id"), str))
        return [info for info in infos if is_chat(info.name) or info.kind == "embedding"]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        ending = Ending(request)
        async with AsyncExitStack() as stack:
            response = await self._begin(stack, request)
            try:
                async for delta in self._deltas(response, ending):
                    ending.saw(delta)
                    yield delta
            except TerraceError as error:
                raise self.upstream.named(error) from error
        for delta in ending.deltas():
            yield delta

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        answer = await self.upstream.json(
            "POST", "/embeddings", {"model": model, "input": list(texts), "encoding_format": "float"}, model=model
        )
        try:
            rows = sorted(answer["data"], key=lambda row: row.get("index", 0))
            vectors = [[float(number) for number in row["embedding"]] for row in rows]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self.upstream.nonsense("it sent no embeddings") from None
        if len(vectors) != len(texts):
            raise self.upstream.nonsense(f"it sent {len(vectors)} embeddings for {len(texts)} texts")
        return Embeddings(vectors, _usage(answer.get("usage")) or Usage(sum(map(estimate, texts)), 0, estimated=True))

    async def close(self) -> None:
        """Nothing of its own: the transport is shared."""

    async def _begin(self, stack: AsyncExitStack, request: ChatRequest) -> Response:
        """Send it; once more without `stream_options` to a server that does not know them."""
        opened = self.upstream.open("POST", CHAT_PATH, self._body(request), model=request.model)
        try:
            return await stack.enter_async_context(opened)
        except Invalid as error:
            if not self._asks_usage or "stream_options" not in error.message:
                raise
        self._asks_usage = False
        opened = self.upstream.open("POST", CHAT_PATH, self._body(request), model=request.model)
        return await stack.enter_async_context(opened)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body = {**request.options, "model": request.model, "messages": request.messages, "stream": True}
        body.pop("stream_options", None)
        if self._asks_usage:
            body["stream_options"] = {"include_usage": True}
        if self._new_limit and "max_tokens" in body:  # OpenAI's newer models refuse the old name
            body["max_completion_tokens"] = body.pop("max_tokens")
        return body

    async def _deltas(self, response: Response, ending: Ending) -> AsyncGenerator[Delta, None]:
        media = dict(response.headers).get(b"content-type", b"").decode("latin-1").lower()
        if "html" in media:
            raise self.upstream.nonsense("it sent a web page; its base_url usually ends in /v1")
        chunks = self._whole(response) if "application/json" in media else self._chunks(response, ending)
        async for group in chunks:
            for delta in joined(self._read(group, ending)):
                yield delta
        if ending.reason is None:
            raise self.upstream.broke()

    def _read(self, chunks: Sequence[dict[str, Any]], ending: Ending) -> Iterator[Delta]:
        for chunk in chunks:
            if chunk.get("error"):
                raise self.upstream.reported(chunk["error"])
            ending.usage = _usage(chunk.get("usage")) or ending.usage
            for choice in dicts(chunk.get("choices")):
                if choice.get("index") in (0, None):
                    yield from _choice_deltas(choice)
                    if reason := choice.get("finish_reason"):
                        ending.reason = FINISH.get(str(reason), "stop")

    async def _whole(self, response: Response) -> AsyncGenerator[list[dict[str, Any]], None]:
        """A server that does not stream: its answer as one chunk."""
        chunk = _json(await response.read())
        if chunk is None or not (chunk.get("error") or dicts(chunk.get("choices"))):
            raise self.upstream.nonsense()
        for choice in dicts(chunk.get("choices")):
            choice["finish_reason"] = choice.get("finish_reason") or "stop"
        yield [chunk]

    async def _chunks(self, response: Response, ending: Ending) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Those that came together, in one list."""
        good, bad = 0, 0
        async for events in _data(response, ending):
            chunks = [_chunks_of(data) for data in events]
            good, bad = good + sum(map(len, chunks)), bad + chunks.count([])
            yield [chunk for each in chunks for chunk in each]
            if bad > MAX_NONSENSE and not good:
                raise self.upstream.nonsense()
        if not good and ending.reason is None:
            raise self.upstream.nonsense("its answer holds nothing that can be read")

    def _info(self, model: dict[str, Any]) -> ModelInfo:
        name = model["id"]
        meta = model.get("meta")
        known = {**model, **(meta if isinstance(meta, dict) else {})}
        lengths = (known.get(key) for key in ("context_length", "max_model_len", "context_window", "n_ctx_train"))
        return ModelInfo(
            id=f"{self._name}/{name}",
            provider=self._name,
            name=name,
            kind="embedding" if is_embedding(name) else "chat",
            context_tokens=next((length for length in lengths if isinstance(length, int) and length > 0), None),
            vision=_vision(known),
            size_bytes=known["size"] if isinstance(known.get("size"), int) else None,
        )


def _vision(model: dict[str, Any]) -> bool | None:
    """As a server tells it (OpenRouter, Mistral and llama.cpp each in its own way), else by the name."""
    architecture, able = model.get("architecture"), model.get("capabilities")
    modalities = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    if isinstance(modalities, list):
        return "image" in modalities
    if isinstance(able, dict) and isinstance(able.get("vision"), bool):
        return bool(able["vision"])
    if isinstance(able, list) and ("multimodal" in able or "vision" in able):
        return True
    return sees(model["id"])


async def _data(response: Response, ending: Ending) -> AsyncGenerator[list[str], None]:
    """The data of the events that came together, until [DONE], the body's end, or silence after a finish reason."""
    parser, pieces = Parser(), aiter(response)
    while (piece := await _next(pieces, ending)) is not None:
        events = [event.data for event in parser.feed(piece)]
        end = next((place for place, data in enumerate(events) if data.strip() == "[DONE]"), None)
        if events:
            yield events[:end]
        if end is not None:
            ending.reason = ending.reason or "stop"
            return


async def _next(pieces: AsyncIterator[bytes], ending: Ending) -> bytes | None:
    """The next piece; None when the answer has ended."""
    if ending.reason is None:
        return await anext(pieces, None)
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            return await anext(pieces, None)
    except (TimeoutError, TerraceError):
        return None  # the answer itself was complete


def _chunks_of(data: str) -> list[dict[str, Any]]:
    """Of one event: as a rule one; some servers put several into it, a line each."""
    whole = _json(data)
    return [whole] if whole else [chunk for chunk in map(_json, data.split("\n")) if chunk]


def _choice_deltas(choice: dict[str, Any]) -> Iterator[Delta]:
    said = choice.get("delta") or choice.get("message")
    if not isinstance(said, dict):
        if isinstance(choice.get("text"), str):
            yield TextDelta(choice["text"])
        return
    thought = said.get("reasoning_content") or said.get("reasoning")
    if isinstance(thought, str) and thought:
        yield ReasoningDelta(thought)
    yield from _content_deltas(said.get("content") or said.get("refusal"))
    for position, call in enumerate(dicts(said.get("tool_calls"))):
        yield ToolCallDelta(call if isinstance(call.get("index"), int) else {**call, "index": position})


def _content_deltas(content: object) -> Iterator[Delta]:
    """Content is a string, or with some servers a list of parts, thinking among them."""
    if isinstance(content, str) and content:
        yield TextDelta(content)
    for part in dicts(content):
        if part.get("type") == "thinking":
            texts = (each.get("text") for each in dicts(part.get("thinking")))
            yield from (ReasoningDelta(text) for text in texts if isinstance(text, str))
        elif isinstance(part.get("text"), str):
            yield TextDelta(part["text"])


def _usage(said: object) -> Usage | None:
    if not isinstance(said, dict) or not isinstance(said.get("prompt_tokens"), int):
        return None
    details = said.get("prompt_tokens_details")
    cached = count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return Usage(count(said["prompt_tokens"]), count(said.get("completion_tokens")), cached)


def _json(data: str | bytes) -> dict[str, Any] | None:
    try:
        value = decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
