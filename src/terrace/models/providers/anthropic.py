"""Anthropic's own Messages API, translated from and to OpenAI's form.

JSON mode: a schema becomes a tool that must be called, its input being the answer; without a schema, or beside tools
of the caller's own, it is an instruction. Tokens read from or written to the prompt cache count as input, as OpenAI
counts them.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

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
from terrace.models.providers.anthropic_request import ANSWER_TOOL, body
from terrace.models.providers.ending import Ending
from terrace.models.providers.parts import count
from terrace.models.providers.upstream import Upstream
from terrace.models.sse import Parser
from terrace.models.transport.base import Response

CONTEXT_TOKENS = 200_000  # of every current model, unless it lists another

FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
STATUS = {  # what an error inside a stream would have been as a status
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
}


class Anthropic:
    def __init__(self, name: str, upstream: Upstream) -> None:
        self._name = name
        self.upstream = upstream

    @property
    def name(self) -> str:
        return self._name

    async def models(self) -> list[ModelInfo]:
        answer = await self.upstream.json("GET", "/v1/models?limit=1000")
        listed = answer.get("data")
        if not isinstance(listed, list):
            raise self.upstream.nonsense("it lists no models")
        named = [each for each in listed if isinstance(each, dict) and isinstance(each.get("id"), str)]
        return [self._info(each) for each in named if each.get("lifecycle") != "retired"]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        ending = Ending(request)
        sent = body(request, self.upstream.label)
        reading = _Reading(self.upstream, ending)
        async with (
            self.upstream.open("POST", "/v1/messages", sent, model=request.model) as response,
            aclosing(_events(response)) as events,
        ):
            try:
                async for event in events:
                    for delta in reading.deltas(event):
                        ending.saw(delta)
                        yield delta
                    if event.get("type") == "message_stop":
                        break
            except TerraceError as error:
                raise self.upstream.named(error) from error
        if ending.reason is None:
            raise self.upstream.broke() if reading.begun else self.upstream.nonsense()
        for last in ending.deltas():
            yield last

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        raise Invalid("Anthropic has no embeddings. Choose another provider's model.", code="no_embeddings")

    async def close(self) -> None:
        """Nothing of its own: the transport is shared."""

    def _info(self, model: dict[str, Any]) -> ModelInfo:
        name, length = model["id"], model.get("max_input_tokens")
        context = length if isinstance(length, int) and length > 0 else CONTEXT_TOKENS
        return ModelInfo(f"{self._name}/{name}", self._name, name, context_tokens=context, vision=True)


class _Reading:
    """An answer being read: which block is which tool call, and what usage was said so far."""

    def __init__(self, upstream: Upstream, ending: Ending) -> None:
        self._upstream = upstream
        self._ending = ending
        self._calls: dict[int, int] = {}  # block index -> tool call index
        self._answers: set[int] = set()  # blocks that are JSON answers dressed as tool calls
        self._said: dict[str, int] = {}
        self.begun = False

    def deltas(self, event: dict[str, Any]) -> Iterator[Delta]:
        match event.get("type"):
            case "message_start":
                self.begun = True
                self._usage(_object(event, "message").get("usage"))
            case "content_block_start":
                yield from self._block(count(event.get("index")), _object(event, "content_block"))
            case "content_block_delta":
                yield from self._piece(count(event.get("index")), _object(event, "delta"))
            case "message_delta":
                self._usage(event.get("usage"))
                if reason := _object(event, "delta").get("stop_reason"):
                    self._finish(FINISH.get(str(reason), "stop"))
            case "error":
                error = _object(event, "error")
                status = STATUS.get(str(error.get("type")))
                raise self._upstream.reported(error | ({"code": status} if status else {}))

    def _block(self, index: int, block: dict[str, Any]) -> Iterator[Delta]:
        if block.get("type") == "tool_use":
            if block.get("name") == ANSWER_TOOL:
                self._answers.add(index)
                return
            self._calls[index] = self._ending.calls
            self._ending.calls += 1
            yield ToolCallDelta({
                "index": self._calls[index], "id": str(block.get("id") or ""), "type": "function",
                "function": {"name": str(block.get("name") or ""), "arguments": ""},
            })  # fmt: skip
        elif text := block.get("text"):
            yield TextDelta(str(text))

    def _piece(self, index: int, delta: dict[str, Any]) -> Iterator[Delta]:
        match delta.get("type"):
            case "text_delta" if delta.get("text"):
                yield TextDelta(str(delta["text"]))
            case "thinking_delta" if delta.get("thinking"):
                yield ReasoningDelta(str(delta["thinking"]))
            case "input_json_delta" if delta.get("partial_json"):
                text = str(delta["partial_json"])
                if index in self._answers:
                    yield TextDelta(text)
                elif index in self._calls:
                    yield ToolCallDelta({"index": self._calls[index], "function": {"arguments": text}})

    def _finish(self, reason: FinishReason) -> None:
        self._ending.reason = "stop" if reason == "tool_calls" and self._answers else reason

    def _usage(self, said: object) -> None:
        """The start tells the input, the end the output; each number is a total, so the last one said holds."""
        if not isinstance(said, dict):
            return
        self._said |= {str(name): count for name, count in said.items() if isinstance(count, int)}
        get = self._said.get
        cached = get("cache_read_input_tokens", 0)
        read = get("input_tokens", 0) + cached + get("cache_creation_input_tokens", 0)
        self._ending.usage = Usage(read, get("output_tokens", 0), cached)


async def _events(response: Response) -> AsyncGenerator[dict[str, Any], None]:
    parser = Parser()
    async for piece in response:
        for event in parser.feed(piece):
            try:
                value = decode(event.data)
            except (msgspec.DecodeError, RecursionError):
                continue  # one unreadable event is not the end of an answer
            if isinstance(value, dict):
                yield value


def _object(event: dict[str, Any], key: str) -> dict[str, Any]:
    value = event.get(key)
    return value if isinstance(value, dict) else {}
