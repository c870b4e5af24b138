"""Chat and completions by the model server: what its callers see."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.inference.conftest import KEY, Server, inferring, settings_of

from terrace.models.base import ChatRequest, Finish, Usage
from terrace.models.providers.llamacpp_process import CHILD
from terrace.models.providers.openai import OpenAI
from terrace.models.providers.upstream import Upstream
from terrace.models.transport import open_transport
from terrace.settings import Models

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
WHOLE = {"ignore_eos": True}  # its weights are random: by chance it would end sooner now and then
LONG = {"messages": HELLO, "max_tokens": 30_000, "stream": True, "ignore_eos": True}  # nobody sees its end


async def events(response: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") async for line in response.aiter_lines() if line.startswith("data: ")]


async def metric(client: httpx.AsyncClient, name: str) -> float:
    text = (await client.get("/metrics")).text
    return float(next(line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(name)))


async def test_openais_own_sdk_chats_completes_and_lists(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY) as sdk:
        chat = await sdk.chat.completions.create(model="tiny", messages=HELLO, max_tokens=5, extra_body=WHOLE)
        assert chat.choices[0].finish_reason == "length"
        assert chat.usage is not None
        assert chat.usage.completion_tokens == 5
        completion = await sdk.completions.create(model="tiny", prompt="hello", max_tokens=5, extra_body=WHOLE)
        assert completion.choices[0].text
        pieces = [
            piece
            async for piece in await sdk.chat.completions.create(
                model="tiny",
                messages=HELLO,
                max_tokens=7,
                stream=True,
                stream_options={"include_usage": True},
                extra_body=WHOLE,
            )
        ]
        assert pieces[-1].usage is not None
        assert pieces[-1].usage.completion_tokens == 7
        assert "tiny" in [each.id async for each in sdk.models.list()]
        assert (await sdk.models.retrieve("tiny")).id == "tiny"


async def test_terrace_reaches_it_as_any_openai_compatible_server(server: Server) -> None:
    transport = open_transport(Models())
    headers = ((b"authorization", f"Bearer {KEY}".encode()),)
    provider = OpenAI("gpu", Upstream("gpu", f"{server.url}/v1", headers, transport, (KEY,)))
    async with aclosing(provider.stream(ChatRequest("tiny", HELLO, {"max_tokens": 4} | WHOLE))) as deltas:
        got = [delta async for delta in deltas]
    assert isinstance(got[-2], Usage)
    assert got[-1] == Finish("length")
    assert "tiny" in [each.name for each in await provider.models()]
    await transport.close()


@pytest.mark.parametrize("key", ["", "wrong-key-of-some-length"])
async def test_nobody_without_the_key_gets_in(server: Server, key: str) -> None:
    async with server.client(key) as stranger:
        for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/metrics")):
            answer = await stranger.request(method, path)
            assert answer.status_code == 401, path
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert (await stranger.get("/health")).json() == {"status": "healthy"}


async def test_what_is_wrong_is_told_in_openais_form(tmp_path: Path, gguf: Path) -> None:
    async with inferring(settings_of(tmp_path, gguf, max_body_bytes=2048)) as server, server.client() as client:
        for body, status, code in (
            (b"{", 400, "invalid_json"),
            (b"[]", 400, "invalid_json"),
            (b'{"model": "gpt-9", "messages": []}', 404, "model_not_found"),
            (b"x" * 3000, 413, "body_too_large"),
        ):
            answer = await client.post("/v1/chat/completions", content=body)
            assert answer.status_code == status
            assert answer.json()["error"]["code"] == code
        assert (await client.get("/v1/chat/completions")).status_code == 405
        assert (await client.post("/v1/audio/speech")).status_code == 404


async def test_what_llamacpp_refuses_goes_on_to_the_caller(client: httpx.AsyncClient) -> None:
    long = {"messages": [{"role": "user", "content": "x" * 50_000}]}
    answer = await client.post("/v1/chat/completions", json=long)
    assert answer.status_code == 400
    assert "context" in answer.json()["error"]["message"]


async def test_more_than_can_wait_are_told_when_to_come_back(tmp_path: Path, gguf: Path) -> None:
    options = settings_of(tmp_path, gguf, slots=1, queue=1, embeddings=False)
    async with inferring(options) as server, server.client() as client:
        await server.ready()

        async def ask(tokens: int) -> httpx.Response:
            return await client.post("/v1/chat/completions", json={**LONG, "max_tokens": tokens, "stream": False})

        async with client.stream("POST", "/v1/chat/completions", json=LONG) as running:
            lines = running.aiter_lines()
            await anext(lines)
            waiting = asyncio.create_task(ask(3))
            async with asyncio.timeout(30):
                while await metric(client, "terrace_inference_waiting ") < 1:  # noqa: ASYNC110 another task's doing
                    await asyncio.sleep(0.01)
            refused = await ask(3)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 600
            assert refused.json()["error"]["code"] == "queue_full"
        assert (await waiting).status_code == 200, "the client that left gave its slot back"
        assert await metric(client, "terrace_inference_refused_total") == 1
        assert await metric(client, 'terrace_inference_slots{state="busy"}') == 0


async def test_answers_share_the_slots(client: httpx.AsyncClient) -> None:
    """Two answers are being written at the same time: the second has words, and the first is not at its end."""

    def one() -> AbstractAsyncContextManager[httpx.Response]:
        return client.stream("POST", "/v1/chat/completions", json=LONG)

    async with one() as first, one() as second:
        both = [first.aiter_lines(), second.aiter_lines()]
        for lines in both:
            for _ in range(20):
                await anext(lines)
        assert await metric(client, 'terrace_inference_slots{state="busy"}') == 2


async def test_it_counts_what_it_writes(client: httpx.AsyncClient) -> None:
    await client.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 9, "ignore_eos": True})
    async with client.stream("POST", "/v1/completions", json={"prompt": "a", "max_tokens": 4, "stream": True,
                                                                "ignore_eos": True}) as response:  # fmt: skip
        assert (await events(response))[-1] == "[DONE]"
    labels = 'direction="output",model="tiny",provider="inference"'
    text = (await client.get("/metrics")).text
    line = next(
        line for line in text.splitlines() if line.startswith("terrace_model_tokens_total{") and "output" in line
    )
    assert line.endswith(" 13.0"), (labels, line)


async def test_it_loads_its_model_again_when_llamacpp_died(client: httpx.AsyncClient) -> None:
    import psutil

    there = psutil.Process().children()
    children = [each for each in there if CHILD in (each.as_dict(["cmdline"])["cmdline"] or ())]  # of a zombie: None
    assert len(children) == 1
    children[0].kill()
    answer = await client.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 3})
    assert answer.status_code == 200


async def test_it_drains(tmp_path: Path, gguf: Path) -> None:
    """Once told to stop, it takes nothing new, and finishes what it writes."""
    async with inferring(settings_of(tmp_path, gguf, embeddings=False)) as server, server.client() as client:
        await server.ready()
        kept = await client.get("/health")  # a connection that stays open
        assert kept.status_code == 200
        async with client.stream("POST", "/v1/chat/completions", json={**LONG, "max_tokens": 400}) as response:
            lines = response.aiter_lines()
            got = [await anext(lines)]
            server.stop.set()
            got += [line async for line in lines if line.startswith("data: ")]
        assert got[-1] == "data: [DONE]"
        assert json.loads(got[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        await server.serving
        with pytest.raises(httpx.TransportError):
            await client.get("/health")
