"""OpenAI-compatible servers as they really are: what they leave out, add and get wrong."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.models.upstream import HOLD, Reply, Upstream, json_reply
from tests.models.wires import OpenAIWire, sse

from terrace.errors import Invalid, Unavailable
from terrace.models.base import ChatRequest, Delta, Finish, Provider, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from terrace.models.providers.openai import OpenAI
from terrace.models.providers.upstream import Upstream as Address
from terrace.models.transport import Transport, open_transport
from terrace.settings import Models

WIRE = OpenAIWire()
HELLO = ChatRequest("m", [{"role": "user", "content": "hello"}])


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = open_transport(Models())
    yield transport
    await transport.close()


@pytest.fixture
def provider(upstream: Upstream, transport: Transport) -> Provider:
    return WIRE.open(upstream.url, transport)


async def collect(provider: Provider, request: ChatRequest = HELLO) -> list[Delta]:
    async with aclosing(provider.stream(request)) as deltas:
        return [delta async for delta in deltas]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


@pytest.mark.parametrize(
    "body",
    [
        [WIRE.text("Hello"), WIRE.chunk({}, "stop")],
        [WIRE.text("Hello"), WIRE.chunk({}, "stop"), *WIRE.done],
        [WIRE.text("Hello"), *WIRE.done],
        [b": keep-alive\n\n", WIRE.text("Hello"), b"event: ping\ndata: pong\n\n", WIRE.chunk({}, "stop")],
        [b"garbage\r\n\r\n", WIRE.text("Hello"), b"data: {broken\n\n", b"data: 12\n\n", WIRE.chunk({}, "stop")],
        [sse({"choices": [{"index": 0, "delta": {"content": "Hello"}}]}, eol="\r\n"), WIRE.chunk({}, "stop")],
        [b'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "Hello"}}]}\n\n', *WIRE.done],
        [WIRE.text("Hello").rstrip() + b"\n" + WIRE.chunk({}, "stop")],
        [sse({"choices": "none", "usage": 3}), WIRE.chunk({"content": "Hello"}, "stop"), sse({"choices": [None]})],
        [sse({"choices": [{"delta": {"content": "Hello"}, "finish_reason": "eos_token"}]})],
        [WIRE.chunk({"content": [{"type": "text", "text": "Hello"}]}, "stop")],
    ],
    ids=["no-done", "done", "no-reason", "comments", "garbage", "crlf", "multi-line", "one-newline", "wrong-types",
         "own-reason", "parts"],
)  # fmt: skip
async def test_a_server_may_be_odd(upstream: Upstream, provider: Provider, body: list[bytes]) -> None:
    upstream.on(WIRE.chat, WIRE.reply(body))
    deltas = await collect(provider)
    assert text(deltas) == "Hello"
    assert deltas[-1] == Finish("stop")
    assert isinstance(deltas[-2], Usage)
    assert deltas[-2].estimated
    assert deltas[-2].output_tokens == 2


@pytest.mark.parametrize(
    "body",
    [
        [WIRE.text("a"), WIRE.chunk({}, "stop"), sse({"choices": [], "usage": USAGE}), *WIRE.done],
        [WIRE.text("a"), WIRE.chunk({}, "stop", usage=USAGE), *WIRE.done],
        [WIRE.chunk({"content": "a"}, usage={"prompt_tokens": 7, "completion_tokens": 1}),
         WIRE.chunk({}, "stop", usage=USAGE)],
    ],
    ids=["apart", "with-the-end", "with-every-piece"],
)  # fmt: skip
async def test_usage_may_come_anywhere(upstream: Upstream, provider: Provider, body: list[bytes]) -> None:
    upstream.on(WIRE.chat, WIRE.reply(body))
    assert (await collect(provider))[-2] == Usage(7, 3, cached_tokens=2)


async def test_a_server_that_does_not_end_its_body_is_not_waited_for(upstream: Upstream, provider: Provider) -> None:
    upstream.on(WIRE.chat, WIRE.reply([WIRE.text("a"), *WIRE.end(), HOLD]))
    assert text(await collect(provider)) == "a"


async def test_a_server_that_does_not_stream_is_understood(upstream: Upstream, provider: Provider) -> None:
    message = {"role": "assistant", "content": "whole", "reasoning_content": "hm"}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "length"}], "usage": USAGE}
    upstream.on(WIRE.chat, json_reply(whole))
    assert await collect(provider) == [ReasoningDelta("hm"), TextDelta("whole"), Usage(7, 3, 2), Finish("length")]


async def test_json_that_is_no_answer_is_nonsense(upstream: Upstream, provider: Provider) -> None:
    upstream.on(WIRE.chat, json_reply({"status": "ok"}))
    with pytest.raises(Unavailable) as caught:
        await collect(provider)
    assert caught.value.code == "upstream_nonsense"


async def test_endless_nonsense_is_given_up(upstream: Upstream, provider: Provider) -> None:
    upstream.on(WIRE.chat, WIRE.reply([b"data: {nonsense\n\n" * 200, HOLD]))
    with pytest.raises(Unavailable) as caught:
        await collect(provider)
    assert caught.value.code == "upstream_nonsense"


async def test_tool_calls_without_an_index_get_one(upstream: Upstream, provider: Provider) -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}, {"id": "b"}]
    upstream.on(WIRE.chat, WIRE.reply([WIRE.chunk({"tool_calls": calls}, "tool_calls")]))
    found = [delta.call for delta in await collect(provider) if isinstance(delta, ToolCallDelta)]
    assert [(call["index"], call["id"]) for call in found] == [(0, "a"), (1, "b")]


async def test_tools_images_and_json_mode_go_through_untouched(upstream: Upstream, provider: Provider) -> None:
    upstream.on(WIRE.chat, WIRE.answer("ok"))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    options: dict[str, Any] = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        "seed": 3,
        "logit_bias": {"1": -100},
    }
    await collect(provider, ChatRequest("m", messages, {**options, "stream": False, "stream_options": {}}))
    body = upstream.seen[-1].body
    assert body["messages"] == messages
    assert {name: body[name] for name in options} == options
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


async def test_a_server_that_knows_no_stream_options_is_asked_without(upstream: Upstream, provider: Provider) -> None:
    refusal = json_reply({"detail": [{"loc": ["body", "stream_options"], "msg": "stream_options: not permitted"}]}, 422)
    upstream.on(WIRE.chat, refusal, WIRE.answer("one"))
    assert text(await collect(provider)) == "one"
    assert text(await collect(provider)) == "one"
    assert ["stream_options" in seen.body for seen in upstream.seen] == [True, False, False]


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too long by 3"}},
        {"error": "too long by 3"},
        {"message": "too long by 3"},
        {"detail": "too long by 3"},
        {"detail": [{"loc": ["x"], "msg": "too long by 3"}]},
        [{"error": {"message": "too long by 3"}}],
    ],
)
async def test_every_usual_shape_of_error_is_read(upstream: Upstream, provider: Provider, body: Any) -> None:
    upstream.on(WIRE.chat, json_reply(body, 400))
    with pytest.raises(Invalid, match="too long by 3"):
        await collect(provider)


async def test_a_refusal_inside_a_stream_keeps_its_kind(upstream: Upstream, provider: Provider) -> None:
    upstream.on(WIRE.chat, WIRE.reply([sse({"error": {"message": "context too long", "code": 400}})]))
    with pytest.raises(Invalid, match="context too long"):
        await collect(provider)


async def test_an_enormous_error_is_kept_short(upstream: Upstream, provider: Provider) -> None:
    upstream.on(WIRE.chat, json_reply({"error": "x" * 50_000}, 400), Reply([b"x" * 5_000_000], 500))
    with pytest.raises(Invalid) as caught:
        await collect(provider)
    assert len(caught.value.message) < 600
    with pytest.raises(Unavailable):
        await collect(provider)


async def test_a_model_list_tells_what_it_knows(upstream: Upstream, provider: Provider) -> None:
    upstream.on(WIRE.listing, json_reply({"data": [
        {"id": "vllm", "max_model_len": 4096}, {"id": "router", "context_length": 9000},
        {"id": "cpp", "meta": {"n_ctx_train": 2048, "size": 77}}, {"id": "bge-m3"}, {"id": "whisper-1"}, {"x": 1}, 3,
    ]}))  # fmt: skip
    infos = {info.name: info for info in await provider.models()}
    assert set(infos) == {"vllm", "router", "cpp", "bge-m3"}
    assert [infos[name].context_tokens for name in ("vllm", "router", "cpp")] == [4096, 9000, 2048]
    assert infos["cpp"].size_bytes == 77
    assert infos["bge-m3"].kind == "embedding"


async def test_embeddings_come_in_order(upstream: Upstream, provider: Provider) -> None:
    rows = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0.5]}]
    upstream.on("/v1/embeddings", json_reply({"data": rows, "usage": {"prompt_tokens": 5, "total_tokens": 5}}))
    found = await provider.embed("e", ["a", "b"])
    assert found.vectors == [[1.0, 0.5], [0.0, 1.0]]
    assert found.usage == Usage(5, 0)


@pytest.mark.parametrize("rows", [[], [{"index": 0}], [{"index": 0, "embedding": ["x"]}], [3], None])
async def test_embeddings_that_are_none_are_nonsense(upstream: Upstream, provider: Provider, rows: object) -> None:
    upstream.on("/v1/embeddings", json_reply({"data": rows}))
    with pytest.raises(Unavailable) as caught:
        await provider.embed("e", ["a"])
    assert caught.value.code == "upstream_nonsense"


async def test_openai_itself_is_told_the_limit_by_its_new_name() -> None:
    class Recorder:
        sent: bytes = b""

        async def send(self, method: str, url: str, headers: Any = (), body: bytes = b"", **timeouts: float) -> Any:
            self.sent = body
            raise Unavailable("Far away.", code="upstream_unreachable")

        async def close(self) -> None: ...

    recorder = Recorder()
    provider = OpenAI("openai", Address("OpenAI", "https://api.openai.com/v1", (), recorder))
    with pytest.raises(Unavailable):
        await collect(provider, ChatRequest("gpt", [], {"max_tokens": 5}))
    assert b'"max_completion_tokens":5' in recorder.sent
    assert b'"max_tokens"' not in recorder.sent


async def test_text_that_came_together_is_one_delta_and_comes_before_a_failure(
    upstream: Upstream, provider: Provider
) -> None:
    words = b"".join(WIRE.text(word) for word in ("one ", "two ", "three"))
    thought = WIRE.chunk({"reasoning_content": "hm"})
    end = WIRE.chunk({}, "stop")
    upstream.on(WIRE.chat, WIRE.reply([words + thought + WIRE.text("!") + end]))
    deltas = await collect(provider)
    assert deltas[:3] == [TextDelta("one two three", 3), ReasoningDelta("hm"), TextDelta("!")]
    failing = sse({"error": {"message": "overloaded"}})
    upstream.on(WIRE.chat, WIRE.reply([words + failing]))
    async with aclosing(provider.stream(HELLO)) as stream:
        assert await anext(stream) == TextDelta("one two three", 3)
        with pytest.raises(Unavailable, match="overloaded"):
            await anext(stream)
