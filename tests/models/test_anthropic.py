"""What Anthropic is sent and how its answers are read."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.models.upstream import Upstream, json_reply
from tests.models.wires import AnthropicWire

from terrace.errors import Invalid, Limited, Unavailable
from terrace.models.base import ChatRequest, Delta, Finish, Provider, TextDelta, Usage
from terrace.models.transport import Transport, open_transport
from terrace.settings import Models

WIRE = AnthropicWire()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.on(WIRE.chat, WIRE.answer("ok"))
        yield upstream


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = open_transport(Models())
    yield transport
    await transport.close()


@pytest.fixture
def provider(upstream: Upstream, transport: Transport) -> Provider:
    return WIRE.open(upstream.url, transport)


async def ask(provider: Provider, messages: Any = "hello", **options: Any) -> list[Delta]:
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    async with aclosing(provider.stream(ChatRequest("m", said, options))) as deltas:
        return [delta async for delta in deltas]


def block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


async def test_a_conversation_is_made_to_alternate(upstream: Upstream, provider: Provider) -> None:
    messages = [
        {"role": "system", "content": "One."},
        {"role": "assistant", "content": "Welcome."},
        {"role": "user", "content": "a"},
        {"role": "system", "content": "Two."},
        {"role": "user", "content": "b"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "And so  "},
    ]
    await ask(provider, messages)
    body = upstream.seen[-1].body
    assert body["system"] == "One.\n\nTwo."
    assert body["max_tokens"] == 4096
    assert body["messages"] == [
        {"role": "user", "content": [block("Begin.")]},
        {"role": "assistant", "content": [block("Welcome.")]},
        {"role": "user", "content": [block("a"), block("b")]},
        {"role": "assistant", "content": [block("And so")]},
    ]


async def test_images_and_tools_both_ways(upstream: Upstream, provider: Provider) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    images = ["data:image/png;base64,AAAA", "https://x/y.jpg"]
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}} for url in images]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
        {"role": "user", "content": "So?"},
    ]
    function = {"name": "weather", "description": "d", "parameters": {"type": "object"}}
    await ask(provider, messages, tools=[{"type": "function", "function": function}], parallel_tool_calls=False)
    body = upstream.seen[-1].body
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://x/y.jpg"}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "Rain."}, block("So?")],
        },
    ]
    assert body["tools"] == [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
async def test_tool_choice(upstream: Upstream, provider: Provider, choice: Any, sent: Any) -> None:
    await ask(provider, tools=[{"type": "function", "function": {"name": "f"}}], tool_choice=choice)
    assert upstream.seen[-1].body["tool_choice"] == sent


async def test_options_are_translated(upstream: Upstream, provider: Provider) -> None:
    await ask(provider, temperature=1.7, top_p=0.5, stop=["a", " "], user="ada", max_tokens=9, seed=1)
    body = upstream.seen[-1].body
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (1, 0.5, 9)
    assert body["stop_sequences"] == ["a"]
    assert body["metadata"] == {"user_id": "ada"}
    assert "seed" not in body


async def test_a_json_schema_becomes_a_tool_whose_input_is_the_answer(upstream: Upstream, provider: Provider) -> None:
    call = WIRE.tool_call("t1", "answer_in_json", ['{"city":', '"Oslo"}'])
    upstream.on(WIRE.chat, WIRE.reply([WIRE.begin()[0], *call, *WIRE.end("tool_calls")]))
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    deltas = await ask(provider, response_format=wanted)
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == '{"city":"Oslo"}'
    assert deltas[-1] == Finish("stop")
    body = upstream.seen[-1].body
    assert body["tool_choice"] == {"type": "tool", "name": "answer_in_json"}
    assert body["tools"][0]["input_schema"] == schema


async def test_json_without_a_schema_is_an_instruction(upstream: Upstream, provider: Provider) -> None:
    await ask(provider, response_format={"type": "json_object"})
    assert "JSON object" in upstream.seen[-1].body["system"]
    assert "tools" not in upstream.seen[-1].body


async def test_cached_tokens_count_as_input(upstream: Upstream, provider: Provider) -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 10, "output_tokens": 1}
    start = WIRE.event("message_start", message={"usage": usage})
    upstream.on(WIRE.chat, WIRE.reply([start, WIRE.text("a"), *WIRE.end(usage=(0, 8))]))
    assert (await ask(provider))[-2] == Usage(115, 8, cached_tokens=100)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
async def test_stop_reasons(upstream: Upstream, provider: Provider, reason: str, finish: Any) -> None:
    last = WIRE.event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 1})
    upstream.on(WIRE.chat, WIRE.reply([*WIRE.begin(), last, WIRE.event("message_stop")]))
    assert (await ask(provider))[-1] == Finish(finish)


@pytest.mark.parametrize(
    ("type", "kind"),
    [("invalid_request_error", Invalid), ("rate_limit_error", Limited), ("overloaded_error", Unavailable)],
)
async def test_an_error_in_a_stream_keeps_its_kind(
    upstream: Upstream, provider: Provider, type: str, kind: Any
) -> None:
    error = {"type": type, "message": "the reason"}
    upstream.on(WIRE.chat, WIRE.reply([*WIRE.begin(), WIRE.event("error", error=error)]))
    with pytest.raises(kind, match="the reason"):
        await ask(provider)


async def test_there_are_no_embeddings(provider: Provider) -> None:
    with pytest.raises(Invalid, match="no embeddings"):
        await provider.embed("m", ["a"])


async def test_models_still_to_be_had_are_listed_with_their_context(upstream: Upstream, provider: Provider) -> None:
    listed = WIRE.models("claude-a", "claude-old")
    listed["data"][1]["lifecycle"] = "retired"
    upstream.on(WIRE.listing, json_reply(listed))
    (info,) = await provider.models()
    assert (info.id, info.context_tokens, info.vision) == ("up/claude-a", 200_000, True)
