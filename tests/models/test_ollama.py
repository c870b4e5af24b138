"""What Ollama is sent and how its answers are read."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.models.upstream import Upstream, json_reply
from tests.models.wires import OllamaWire

from terrace.errors import Invalid, Unavailable
from terrace.models.base import ChatRequest, Delta, Finish, ToolCallDelta, Usage
from terrace.models.providers.ollama import MAX_CONTEXT, Ollama
from terrace.models.transport import Transport, open_transport
from terrace.settings import Models

WIRE = OllamaWire()
PIXEL = "iVBORw0KGgo="


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.on("/api/show", json_reply({"model_info": {"llama.context_length": 131_072}}))
        upstream.on(WIRE.chat, WIRE.answer("ok"))
        yield upstream


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = open_transport(Models())
    yield transport
    await transport.close()


@pytest.fixture
def ollama(upstream: Upstream, transport: Transport) -> Ollama:
    provider = WIRE.open(upstream.url, transport)
    assert isinstance(provider, Ollama)
    return provider


async def ask(ollama: Ollama, messages: Any = "hello", **options: Any) -> list[Delta]:
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    async with aclosing(ollama.stream(ChatRequest("m", said, options))) as deltas:
        return [delta async for delta in deltas]


async def test_options_get_ollamas_names(upstream: Upstream, ollama: Ollama) -> None:
    await ask(ollama, temperature=0.1, top_p=0.9, seed=4, max_completion_tokens=50, stop="END", think=False, n=1)
    body = upstream.seen[-1].body
    assert body["options"] == {
        "temperature": 0.1,
        "top_p": 0.9,
        "seed": 4,
        "num_predict": 50,
        "stop": ["END"],
        "num_ctx": 8192,
    }
    assert body["think"] is False
    assert body["stream"] is True


@pytest.mark.parametrize(
    ("wanted", "format"),
    [
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}, {"type": "object"}),
        ({"type": "text"}, None),
        (None, None),
    ],
)
async def test_json_mode(upstream: Upstream, ollama: Ollama, wanted: Any, format: Any) -> None:
    await ask(ollama, response_format=wanted)
    assert upstream.seen[-1].body.get("format") == format


async def test_images_and_tool_results_are_translated(upstream: Upstream, ollama: Ollama) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Look:"}, picture]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
    ]
    await ask(ollama, messages, tools=[{"type": "function", "function": {"name": "weather"}}])
    body = upstream.seen[-1].body
    assert body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Look:", "images": [PIXEL]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}],
        },
        {"role": "tool", "content": "Rain.", "tool_name": "weather"},
    ]
    assert body["tools"] == [{"type": "function", "function": {"name": "weather"}}]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}, "data URL"),
        ({"content": [{"type": "image_url", "image_url": {"url": "data:nonsense"}}]}, "data URL"),
        ({"content": [{"type": "image_url"}]}, "needs a url"),
        ({"content": [{"type": "input_audio", "input_audio": {}}]}, "input_audio"),
        ({"content": 3}, "string or a list"),
        ({"content": ["text"]}, "string or a list"),
        ({"content": "", "tool_calls": [{"function": {"name": "f", "arguments": "[1"}}]}, "JSON object"),
    ],
)
async def test_what_cannot_be_sent_says_so(ollama: Ollama, message: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        await ask(ollama, [{"role": "user", **message}])


async def test_two_tool_calls_are_told_apart(upstream: Upstream, ollama: Ollama) -> None:
    calls = [piece for name in "fg" for piece in WIRE.tool_call("", name, ["{}"])]
    upstream.on(WIRE.chat, WIRE.reply([*calls, *WIRE.end()]))
    deltas = await ask(ollama)
    found = [delta.call for delta in deltas if isinstance(delta, ToolCallDelta)]
    assert [(call["index"], call["function"]["name"]) for call in found] == [(0, "f"), (1, "g")]
    assert len({call["id"] for call in found}) == 2
    assert deltas[-1] == Finish("tool_calls")


async def test_uncounted_tokens_are_estimated(upstream: Upstream, ollama: Ollama) -> None:
    upstream.on(WIRE.chat, WIRE.answer("four words of answer", usage=None))
    usage = (await ask(ollama))[-2]
    assert isinstance(usage, Usage)
    assert usage.estimated
    assert usage.output_tokens == 5


# The context, which Ollama cuts without a word


@pytest.mark.parametrize(("chars", "context"), [(10, 8192), (40_000, 16_384), (80_000, 32_768), (400_000, MAX_CONTEXT)])
async def test_the_context_grows_with_the_request(upstream: Upstream, ollama: Ollama, chars: int, context: int) -> None:
    await ask(ollama, "x" * chars)
    assert upstream.seen[-1].body["options"]["num_ctx"] == context


async def test_the_context_is_not_more_than_the_model_has(upstream: Upstream, ollama: Ollama) -> None:
    upstream.on("/api/show", json_reply({"model_info": {"gemma.context_length": 2048}}))
    await ask(ollama, "x" * 40_000)
    assert upstream.seen[-1].body["options"]["num_ctx"] == 2048
    assert await ollama.context_tokens("m") == 2048


async def test_a_larger_context_set_in_the_model_is_kept(upstream: Upstream, ollama: Ollama) -> None:
    shown = {"model_info": {"llama.context_length": 131_072}, "parameters": 'stop "x"\nnum_ctx                  65536'}
    upstream.on("/api/show", json_reply(shown))
    await ask(ollama)
    assert upstream.seen[-1].body["options"]["num_ctx"] == 65_536
    assert await ollama.context_tokens("m") == 65_536


async def test_the_callers_own_context_is_kept(upstream: Upstream, ollama: Ollama) -> None:
    await ask(ollama, num_ctx=1234)
    assert upstream.seen[-1].body["options"]["num_ctx"] == 1234


async def test_a_model_is_shown_once(upstream: Upstream, ollama: Ollama) -> None:
    await ask(ollama)
    await ask(ollama)
    assert [seen.path for seen in upstream.seen] == ["/api/show", "/api/chat", "/api/chat"]


async def test_an_old_ollama_that_shows_nothing_still_answers(upstream: Upstream, ollama: Ollama) -> None:
    upstream.on("/api/show", json_reply({"error": "not found"}, 500))
    assert (await ask(ollama))[-1] == Finish("stop")
    assert await ollama.context_tokens("m") is None


# Lists, embeddings, fetching


async def test_the_list_tells_sizes_and_embedding_models(upstream: Upstream, ollama: Ollama) -> None:
    upstream.on(WIRE.listing, json_reply(WIRE.models("new:1b", "nomic-embed-text:latest", "old:7b")))
    infos = await ollama.models()
    assert [(info.name, info.kind, info.size_bytes) for info in infos] == [
        ("new:1b", "chat", 1000),
        ("nomic-embed-text:latest", "embedding", 1000),
        ("old:7b", "chat", 1000),
    ]


async def test_embeddings(upstream: Upstream, ollama: Ollama) -> None:
    upstream.on("/api/embed", json_reply({"embeddings": [[1, 2], [3, 4]], "prompt_eval_count": 6}))
    found = await ollama.embed("e", ["a", "b"])
    assert (found.vectors, found.usage) == ([[1.0, 2.0], [3.0, 4.0]], Usage(6, 0))
    assert upstream.seen[-1].body == {"model": "e", "input": ["a", "b"]}


@pytest.mark.parametrize("answer", [{}, {"embeddings": []}, {"embeddings": [["x"]]}, {"embeddings": [3]}])
async def test_embeddings_that_are_none_are_nonsense(upstream: Upstream, ollama: Ollama, answer: Any) -> None:
    upstream.on("/api/embed", json_reply(answer))
    with pytest.raises(Unavailable) as caught:
        await ollama.embed("e", ["a"])
    assert caught.value.code == "upstream_nonsense"


async def test_a_fetch_that_breaks_off_is_no_success(upstream: Upstream, ollama: Ollama) -> None:
    upstream.on("/api/pull", WIRE.reply([b'{"status": "pulling", "total": 9, "completed": 1}\n']))
    steps = ollama.pull("m")
    assert await anext(steps) == {"status": "pulling", "total": 9, "completed": 1}
    with pytest.raises(Unavailable) as caught:
        await anext(steps)
    assert caught.value.code == "upstream_broke"
