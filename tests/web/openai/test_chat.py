"""Chat completions through OpenAI's SDK, to an upstream that speaks OpenAI and to one that does not."""

import asyncio
import json
from typing import Any

import openai
import pytest
from tests.models.upstream import CUT, HOLD, Reply, json_reply
from tests.models.wires import KEY, OpenAIWire
from tests.web.openai.conftest import FOREIGN, NATIVE, House, opened

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
WHOLE = {
    "id": "chatcmpl-9", "object": "chat.completion", "created": 1, "model": "m-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}  # fmt: skip


def prepare(house: House, *texts: str, **ending: Any) -> None:
    """The same streamed answer from both upstreams."""
    house.upstream.on(NATIVE.chat, NATIVE.answer(*texts, **ending))
    house.ollama.on(FOREIGN.chat, FOREIGN.answer(*texts, **ending))


BOTH = pytest.mark.parametrize("model", ["mock/m", "local/llama:latest"])


@BOTH
async def test_an_answer(house: House, model: str) -> None:
    prepare(house, "Hel", "lo!")
    house.upstream.on(NATIVE.chat, json_reply(WHOLE))
    answer = await house.client().chat.completions.create(model=model, messages=HELLO, temperature=0.5)
    assert answer.choices[0].message.content == "Hello!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert answer.id.startswith("chatcmpl-")


@BOTH
async def test_a_streamed_answer(house: House, model: str) -> None:
    prepare(house, "Hel", "lo", "!")
    stream = await house.client().chat.completions.create(model=model, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello!"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.choices and chunk.usage is None for chunk in chunks), "nobody asked for the usage"


@BOTH
async def test_the_usage_of_a_stream_when_asked_for(house: House, model: str) -> None:
    prepare(house, "Hello!")
    stream = await house.client().chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (7, 3)


async def test_the_sync_client(house: House) -> None:
    prepare(house, "Hel", "lo!")

    def ask() -> str:
        with house.sync_client() as client:
            stream = client.chat.completions.create(model="mock/m", messages=HELLO, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(ask) == "Hello!"


@BOTH
async def test_a_tool_call(house: House, model: str) -> None:
    call = ("call_1", "weather", ['{"city":', '"Oslo"}'])
    for server, wire in ((house.upstream, NATIVE), (house.ollama, FOREIGN)):
        server.on(wire.chat, wire.reply([*wire.tool_call(*call), *wire.end("tool_calls")]))
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    stream = await house.client().chat.completions.create(model=model, messages=HELLO, tools=tools, stream=True)
    name = arguments = ""
    async for chunk in stream:
        for piece in chunk.choices[0].delta.tool_calls or []:
            assert piece.function is not None
            name += piece.function.name or ""
            arguments += piece.function.arguments or ""
        last = chunk.choices[0].finish_reason
    assert (name, json.loads(arguments), last) == ("weather", {"city": "Oslo"}, "tool_calls")


async def test_a_whole_tool_call_of_a_translated_model(house: House) -> None:
    pieces = FOREIGN.tool_call("call_1", "weather", ['{"city":"Oslo"}'])
    house.ollama.on(FOREIGN.chat, FOREIGN.reply([*pieces, *FOREIGN.end()]))
    answer = await house.client().chat.completions.create(model="local/llama:latest", messages=HELLO)
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    assert answer.choices[0].message.content is None


async def test_thinking_is_told_apart(house: House) -> None:
    pieces = [FOREIGN.thought("Hm."), FOREIGN.text("Hello!"), *FOREIGN.end()]
    house.ollama.on(FOREIGN.chat, FOREIGN.reply(pieces))
    answer = await house.client().chat.completions.create(model="local/llama:latest", messages=HELLO)
    message = answer.choices[0].message.model_dump()
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "Hello!")


async def test_only_the_model_s_name_changes_on_the_way_to_the_upstream(house: House) -> None:
    """Tools, JSON schemas, image parts and fields nobody here has heard of arrive as they were sent."""
    house.upstream.on(NATIVE.chat, json_reply(WHOLE))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    sent: dict[str, Any] = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": 'a "model": \\ é 😀'}, image]}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"model": "nested"}}},
        "seed": 12345678901234567890,
        "temperature": 1e-7,
    }
    await house.client().chat.completions.create(model="mock/m", **sent, extra_body={"unheard_of": {"model": None}})
    seen = house.upstream.seen[-1]
    assert seen.body == {**sent, "unheard_of": {"model": None}, "model": "m"}
    assert seen.headers["authorization"] == f"Bearer {KEY}", "ours, never the client's"


async def test_the_answer_s_bytes_come_back_as_they_are(house: House) -> None:
    odd = b'{ "choices" : [ ] ,\n "usage":null, "x": 1.0e2 }'
    house.upstream.on(NATIVE.chat, Reply([odd]))
    raw = await house.client().chat.completions.with_raw_response.create(model="mock/m", messages=HELLO)
    assert raw.content == odd


async def test_the_usage_we_asked_for_ourselves_is_recorded_and_dropped(house: House) -> None:
    prepare(house, "Hello!")
    stream = await house.client().chat.completions.create(model="mock/m", messages=HELLO, stream=True)
    assert [chunk async for chunk in stream]
    assert house.upstream.seen[-1].body["stream_options"] == {"include_usage": True}
    (call,) = house.limits.calls
    assert call.usage is not None
    assert (call.provider, call.model, call.outcome, call.usage.input_tokens) == ("mock", "m", "ok", 7)
    assert call.first_token is not None
    assert call.first_token <= call.duration


async def test_an_upstream_that_does_not_know_stream_options_is_asked_without(house: House) -> None:
    refusal = json_reply({"error": {"message": "Unknown field: stream_options"}}, 400)
    house.upstream.on(NATIVE.chat, refusal, NATIVE.answer("Hello!", usage=None))
    for _ in range(2):
        stream = await house.client().chat.completions.create(model="mock/m", messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hello!"
    asked = ["stream_options" in seen.body for seen in house.upstream.seen if seen.path == NATIVE.chat]
    assert asked == [True, False, False], "learnt once"


async def test_auto_is_a_model(house: House) -> None:
    house.upstream.on(NATIVE.chat, json_reply(WHOLE))
    answer = await house.client().chat.completions.create(model="auto", messages=HELLO)
    assert answer.choices[0].message.content == "Hello!"


@pytest.mark.parametrize(("model", "asked"), [("rag", []), ("rag:harbours", ["harbours"]), ("rag:a,b", ["a", "b"])])
async def test_answers_from_documents_bring_their_sources(house: House, model: str, asked: list[str]) -> None:
    answer = await house.client().chat.completions.create(model=model, messages=HELLO)
    assert answer.choices[0].message.content == "Seven metres [1]."
    assert (answer.model_extra or {})["sources"] == [{"n": 1, "document_name": "found.txt"}]
    assert house.shelf.asked == [asked]


async def test_streamed_answers_from_documents_begin_with_candidates_and_end_with_what_was_cited(house: House) -> None:
    stream = await house.client().chat.completions.create(model="rag:harbours", messages=HELLO, stream=True)
    sources = [(chunk.model_extra or {}).get("sources") async for chunk in stream]
    assert [len(each) if each else 0 for each in sources] == [2, 0, 1]


@BOTH
async def test_a_client_that_leaves_stops_the_upstream(house: House, model: str) -> None:
    house.upstream.on(NATIVE.chat, NATIVE.reply([NATIVE.text("Hel"), HOLD]))
    house.ollama.on(FOREIGN.chat, FOREIGN.reply([FOREIGN.text("Hel"), HOLD]))
    stream = await house.client().chat.completions.create(model=model, messages=HELLO, stream=True)
    async for _ in stream:
        break
    await stream.close()
    upstream = house.upstream if model.startswith("mock") else house.ollama
    await asyncio.wait_for(upstream.gone.wait(), 20)
    await house.idle()
    assert [call.outcome for call in house.limits.calls] == ["cancelled"]


@BOTH
async def test_a_client_that_leaves_before_the_answer_begins_stops_the_upstream(house: House, model: str) -> None:
    house.upstream.on(NATIVE.chat, Reply([HOLD]))
    house.ollama.on(FOREIGN.chat, Reply([HOLD]))
    upstream = house.upstream if model.startswith("mock") else house.ollama
    call = asyncio.ensure_future(house.client().chat.completions.create(model=model, messages=HELLO))
    await asyncio.wait_for(upstream.held.wait(), 20)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await asyncio.wait_for(upstream.gone.wait(), 20)


@BOTH
async def test_an_upstream_that_dies_mid_stream_is_an_error_in_the_stream(house: House, model: str) -> None:
    house.upstream.on(NATIVE.chat, NATIVE.reply([NATIVE.text("Hel"), CUT]))
    house.ollama.on(FOREIGN.chat, FOREIGN.reply([FOREIGN.text("Hel"), CUT]))
    stream = await house.client().chat.completions.create(model=model, messages=HELLO, stream=True)
    chunks = aiter(stream)
    assert (await anext(chunks)).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIError) as caught:
        await anext(chunks)
    assert caught.value.code == "upstream_broke"


async def test_a_stream_that_ends_without_saying_so_broke_off(house: House) -> None:
    house.upstream.on(NATIVE.chat, NATIVE.reply([NATIVE.text("Hel")]))
    stream = await house.client().chat.completions.create(model="mock/m", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError):
        [chunk async for chunk in stream]


async def test_more_streams_than_allowed_are_refused_early() -> None:
    async with opened(web={"max_streams": 1}) as house:
        house.upstream.on(NATIVE.chat, NATIVE.reply([NATIVE.text("Hel"), HOLD]))
        stream = await house.client().chat.completions.create(model="mock/m", messages=HELLO, stream=True)
        with pytest.raises(openai.InternalServerError) as caught:
            await house.client().chat.completions.create(model="mock/m", messages=HELLO)
        assert caught.value.status_code == 503
        assert caught.value.response.headers["retry-after"] == "1"
        await stream.close()


async def test_when_an_upstream_is_away_the_fallback_answers() -> None:
    async with opened(models={"fallback": ("local/llama:latest",)}) as house:
        house.upstream.on(NATIVE.chat, json_reply({"error": {"message": "overloaded"}}, 503))
        house.ollama.on(FOREIGN.chat, FOREIGN.answer("Hello", "!"))
        answer = await house.client().chat.completions.create(model="mock/m", messages=HELLO)
        assert answer.choices[0].message.content == "Hello!"
        assert answer.model == "local/llama:latest"


async def test_an_upstream_that_was_away_is_asked_again() -> None:
    async with opened(models={"retries": 2}) as house:
        house.upstream.on(NATIVE.chat, Reply([CUT]), json_reply(WHOLE))
        answer = await house.client().chat.completions.create(model="mock/m", messages=HELLO)
        assert answer.choices[0].message.content == "Hello!"


async def test_an_answer_that_grows_too_long_is_cut() -> None:
    async with opened(models={"max_answer_bytes": 2000}) as house:
        # More than comes in one piece: an answer that is whole when it is found too long is not cut.
        house.upstream.on(NATIVE.chat, OpenAIWire().answer(*["word " * 5000] * 80))
        stream = await house.client().chat.completions.create(model="mock/m", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as caught:
            [chunk async for chunk in stream]
        assert caught.value.code == "upstream_too_large"


@pytest.mark.parametrize("model", ["mock/m", "local/llama:latest"])
async def test_legacy_completions(house: House, model: str) -> None:
    legacy = {
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "text": "Hello!", "logprobs": None, "finish_reason": "stop"}],
    }  # fmt: skip
    house.upstream.on("/v1/completions", json_reply(legacy))
    house.ollama.on(FOREIGN.chat, FOREIGN.answer("Hel", "lo!"))
    answer = await house.client().completions.create(model=model, prompt="Say hello.")
    assert answer.choices[0].text == "Hello!"
    assert answer.object == "text_completion"


async def test_streamed_legacy_completions_of_a_translated_model(house: House) -> None:
    house.ollama.on(FOREIGN.chat, FOREIGN.answer("Hel", "lo!"))
    stream = await house.client().completions.create(model="local/llama:latest", prompt="Say hello.", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "Hello!"
    assert house.ollama.seen[-1].body["messages"] == [{"role": "user", "content": "Say hello."}]
