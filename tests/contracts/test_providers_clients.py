"""The vendors' own clients read the very bytes our fake upstreams send, and are understood by them: so the fakes,
and with them the contract in test_providers.py, are true.

Each is imported where it is asked: they take seconds, which all who only collect the tests would wait for.
"""

from collections.abc import AsyncIterator

import pytest
from tests.models.upstream import Upstream, json_reply
from tests.models.wires import KEY, AnthropicWire, OllamaWire, OpenAIWire

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


async def test_openais_client(upstream: Upstream) -> None:
    import openai

    wire = OpenAIWire()
    call = wire.tool_call("call_1", "weather", ['{"city":', ' "Århus"}'])
    upstream.on(
        wire.chat, wire.reply([*wire.begin(), wire.text("Hel"), wire.text("lo"), *call, *wire.end("tool_calls")])
    )
    upstream.on(wire.listing, json_reply(wire.models("big", "small")))
    async with openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m",
            messages=MESSAGES,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert [model.id async for model in client.models.list()] == ["big", "small"]
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == "Hello"
    calls = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert (calls[0].id, calls[0].function.name) == ("call_1", "weather")
    assert "".join(call.function.arguments or "" for call in calls) == '{"city": "Århus"}'
    assert choices[-1].finish_reason == "tool_calls"
    assert chunks[-1].usage.prompt_tokens == 7
    assert upstream.seen[0].headers["authorization"] == f"Bearer {KEY}"


async def test_openais_client_sees_the_error(upstream: Upstream) -> None:
    import openai

    wire = OpenAIWire()
    upstream.on(wire.chat, wire.reply([wire.text("so far"), wire.failure("out of memory")]))
    async with openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)  # type: ignore[arg-type]
        with pytest.raises(openai.APIError, match="out of memory"):
            assert [chunk async for chunk in stream] == []


async def test_ollamas_client(upstream: Upstream) -> None:
    import ollama

    wire = OllamaWire()
    call = wire.tool_call("", "weather", ['{"city": "Århus"}'])
    pieces = [wire.thought("Hm."), wire.text("Hel"), wire.text("lo"), *call, *wire.end()]
    upstream.on(wire.chat, wire.reply(pieces))
    upstream.on(wire.listing, json_reply(wire.models("big", "small")))
    upstream.on("/api/embed", json_reply({"model": "e", "embeddings": [[1, 2]], "prompt_eval_count": 6}))
    upstream.on(
        "/api/pull", wire.reply([b'{"status": "pulling", "total": 9, "completed": 4}\n{"status": "success"}\n'])
    )
    client = ollama.AsyncClient(upstream.url)
    parts = [part async for part in await client.chat("m", MESSAGES, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "Hello"
    assert parts[0].message.thinking == "Hm."
    (found,) = [call for part in parts for call in part.message.tool_calls or []]
    assert (found.function.name, found.function.arguments) == ("weather", {"city": "Århus"})
    assert (parts[-1].done, parts[-1].prompt_eval_count, parts[-1].eval_count) == (True, 7, 3)
    assert [model.model for model in (await client.list()).models] == ["big", "small"]
    assert (await client.embed("e", ["a"])).embeddings == [[1, 2]]
    assert [step.status async for step in await client.pull("m", stream=True)] == ["pulling", "success"]
    await client._client.aclose()


async def test_ollamas_client_sees_the_error(upstream: Upstream) -> None:
    import ollama

    wire = OllamaWire()
    upstream.on(wire.chat, wire.reply([wire.text("so far"), wire.failure("out of memory")]))
    client = ollama.AsyncClient(upstream.url)
    with pytest.raises(ollama.ResponseError, match="out of memory"):
        assert [part async for part in await client.chat("m", MESSAGES, stream=True)] == []
    await client._client.aclose()


async def test_anthropics_client(upstream: Upstream) -> None:
    import anthropic

    wire = AnthropicWire()
    call = wire.tool_call("toolu_1", "weather", ['{"city":', ' "Århus"}'])
    pieces = [*wire.begin(), wire.text("Hel"), wire.text("lo"), *call, *wire.end("tool_calls")]
    upstream.on(wire.chat, wire.reply(pieces))
    upstream.on(wire.listing, json_reply(wire.models("big", "small")))
    async with anthropic.AsyncAnthropic(base_url=upstream.url, api_key=KEY, max_retries=0) as client:
        async with client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream:  # type: ignore[arg-type]
            texts = [text async for text in stream.text_stream]
            message = await stream.get_final_message()
        assert [model.id async for model in client.models.list()] == ["big", "small"]
    assert texts == ["Hel", "lo"]
    assert (message.content[1].name, message.content[1].input) == ("weather", {"city": "Århus"})
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("tool_use", 7, 3)


async def test_anthropics_client_sees_the_error(upstream: Upstream) -> None:
    import anthropic

    wire = AnthropicWire()
    upstream.on(wire.chat, wire.reply([*wire.begin(), wire.failure("overloaded")]))
    async with anthropic.AsyncAnthropic(base_url=upstream.url, api_key=KEY, max_retries=0) as client:
        stream = await client.messages.create(model="m", max_tokens=9, messages=MESSAGES, stream=True)  # type: ignore[arg-type]
        with pytest.raises(anthropic.APIStatusError, match="overloaded"):
            assert [event async for event in stream] == []
