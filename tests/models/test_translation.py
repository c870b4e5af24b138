"""Whatever JSON a client puts into a request, it is translated or refused as wrong; nothing else happens."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.models.wires import WIRES, Wire

from terrace.errors import Invalid, TerraceError
from terrace.models.base import ChatRequest, Finish, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from terrace.models.providers import anthropic_request, ollama_request
from terrace.models.tokens import estimate_messages

SCALAR = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=8)
WORDS = st.sampled_from([
    "text", "image_url", "data:image/png;base64,AA", "data:,", "https://x/y", "user", "assistant", "system", "tool",
    "developer", "function", "auto", "required", "json_object", "json_schema", "{}", '{"a": 1}', "[1]", "{",
])  # fmt: skip
KEYS = st.sampled_from([
    "type", "text", "image_url", "url", "role", "content", "tool_calls", "tool_call_id", "function", "name",
    "arguments", "id", "parameters", "description", "json_schema", "schema", "index", "delta", "message", "thinking",
])  # fmt: skip
VALUE: st.SearchStrategy[Any] = st.recursive(
    SCALAR | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=15
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "developer"]) | VALUE},
    optional=dict.fromkeys(("content", "tool_calls", "tool_call_id", "name"), VALUE),
)
OPTIONS = st.dictionaries(
    st.sampled_from([
        "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop", "tools", "tool_choice", "user",
        "response_format", "parallel_tool_calls", "thinking", "think", "seed", "num_ctx",
    ]),
    VALUE,
    max_size=6,
)  # fmt: skip


@given(st.lists(MESSAGE, max_size=4), OPTIONS)
def test_any_request_is_translated_or_refused(messages: list[dict[str, Any]], options: dict[str, Any]) -> None:
    before = json.dumps([messages, options])
    for body in (anthropic_request.body, ollama_request.body):
        with suppress(Invalid):
            msgspec.json.encode(body(ChatRequest("m", messages, options), "Up"))
    assert json.dumps([messages, options]) == before, "a request is not changed: another model may be asked next"


@given(st.lists(MESSAGE, max_size=4))
def test_any_messages_can_be_counted(messages: list[dict[str, Any]]) -> None:
    assert estimate_messages(messages) >= 4 * len(messages)


STREAMED = st.dictionaries(
    st.sampled_from([
        "choices", "delta", "finish_reason", "usage", "error", "message", "done", "done_reason", "eval_count", "index",
        "type", "content_block", "partial_json", "stop_reason", "tool_calls", "content", "thinking", "text",
        "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "code",
    ]),
    VALUE | st.sampled_from([
        "message_start", "content_block_start", "content_block_delta", "message_delta", "error", "text_delta",
        "tool_use", "input_json_delta", "stop", True,
    ]),
    max_size=6,
)  # fmt: skip
OUTER = KEYS | st.sampled_from(["choices", "delta", "usage"])
OBJECT = st.recursive(
    STREAMED, lambda inner: st.dictionaries(OUTER, inner | st.lists(inner, max_size=2), max_size=4), max_leaves=6
)


class Memory:
    """A transport whose every answer is the same bytes."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.status = 200
        self.headers = [(b"content-type", b"text/event-stream")]

    async def send(self, *asked: Any, **timeouts: float) -> "Memory":
        return self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def read(self, limit: int = 0) -> bytes:
        return self._body

    def close(self) -> None: ...


@given(st.sampled_from(list(WIRES.values())), st.lists(OBJECT, max_size=4))
async def test_any_answer_is_read_or_refused(wire: Wire, objects: list[dict[str, Any]]) -> None:
    written = [json.dumps(each).encode() for each in objects]
    streamed = [line + b"\n" if wire.kind == "ollama" else b"data: " + line + b"\n\n" for line in written]
    provider = wire.open("http://up", Memory(b"".join([*streamed, *wire.end()])))  # type: ignore[arg-type]
    try:
        async with aclosing(provider.stream(ChatRequest("m", []))) as answer:
            deltas = [delta async for delta in answer]
    except TerraceError:
        return
    assert all(isinstance(delta.text, str) for delta in deltas if isinstance(delta, TextDelta | ReasoningDelta))
    assert all(isinstance(delta.call["index"], int) for delta in deltas if isinstance(delta, ToolCallDelta))
    usage, finish = deltas[-2:]
    assert isinstance(finish, Finish)
    assert isinstance(usage, Usage)
    assert usage.input_tokens >= 0
    assert usage.output_tokens >= 0
