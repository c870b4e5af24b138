"""What goes wrong, in the words and statuses that OpenAI's SDK turns into its own exceptions."""

import asyncio
import random
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
from tests.models.upstream import Reply, Upstream, json_reply
from tests.models.wires import KEY
from tests.web.openai.conftest import NATIVE, House, opened

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]


async def refusal(house: House, **fields: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        await house.client().chat.completions.create(**{"model": "mock/m", "messages": HELLO, **fields})
    return caught.value


async def test_an_unknown_model(house: House) -> None:
    error = await refusal(house, model="mokc/m")
    assert isinstance(error, openai.NotFoundError)
    assert error.code == "model_not_found"
    assert error.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "no role"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": "hello"}, "messages"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"model": "rag:"}, "model"),
    ],
    ids=str,
)
async def test_a_wrong_field_is_named(house: House, fields: dict[str, Any], param: str) -> None:
    error = await refusal(house, **{"model": "local/llama:latest", **fields})
    assert isinstance(error, openai.BadRequestError)
    assert error.param == param


async def test_a_refusal_of_the_upstream_keeps_its_words_but_not_our_key(house: House) -> None:
    said = {"message": f"max_tokens is too large for {KEY}", "type": "invalid_request_error", "param": "max_tokens",
            "code": "too_large"}  # fmt: skip
    house.upstream.on(NATIVE.chat, json_reply({"error": said}, 400))
    error = await refusal(house)
    assert isinstance(error, openai.BadRequestError)
    assert (error.param, error.code) == ("max_tokens", "too_large")
    assert KEY not in error.response.text
    assert "max_tokens is too large" in error.message


async def test_a_limit_of_the_upstream_keeps_when_to_come_back(house: House) -> None:
    said = {"error": {"message": "slow down", "type": "rate_limit_error"}}
    house.upstream.on(NATIVE.chat, json_reply(said, 429, retry_after="7"))
    error = await refusal(house)
    assert isinstance(error, openai.RateLimitError)
    assert error.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_the_upstream_does_not_accept_is_the_operator_s_matter(house: House, status: int) -> None:
    house.upstream.on(NATIVE.chat, json_reply({"error": {"message": f"Incorrect API key: {KEY}"}}, status))
    error = await refusal(house)
    assert (error.status_code, error.code) == (502, "upstream_denied")
    assert KEY not in error.response.text
    assert "TERRACE_MODELS__PROVIDERS__MOCK__API_KEY" in error.message
    assert error.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply([b"<html>"], 500), 502, "upstream_error"),
        (Reply([b"<html>"], 503), 503, "upstream_error"),
        (Reply([b"<html>"], 404), 502, "upstream_wrong_url"),
        (Reply([b""], 302), 502, "upstream_wrong_url"),
        (Reply([b"<html>hello</html>"]), 502, "upstream_nonsense"),
        (Reply([b"[1,2"]), 502, "upstream_nonsense"),
    ],
    ids=["500", "503", "404", "redirect", "web page", "half JSON"],
)
async def test_an_upstream_that_fails(house: House, reply: Reply, status: int, code: str) -> None:
    house.upstream.on(NATIVE.chat, reply)
    error = await refusal(house)
    assert (error.status_code, error.code, error.type) == (status, code, "server_error")


async def test_an_upstream_that_is_not_there() -> None:
    provider = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "models": ("m",)}
    async with opened(models={"providers": {"mock": provider}}) as house:
        error = await refusal(house)
        assert (error.status_code, error.code) == (503, "upstream_unreachable")


async def test_an_upstream_that_stalls() -> None:
    async with opened(models={"total_timeout": 0.1, "first_token_timeout": 0.1}) as house:
        house.upstream.on(NATIVE.chat, Reply([5.0]))
        error = await refusal(house)
        assert (error.status_code, error.code) == (504, "upstream_timeout")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/v1/fine_tuning/jobs", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_served(house: House, method: str, path: str, status: int, code: str) -> None:
    async with httpx.AsyncClient(base_url=house.url, verify=False) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":1}x', b"[" * 100_000, b'{"m":' * 50_000]
)
async def test_a_body_that_is_no_json_object(house: House, body: bytes) -> None:
    async with httpx.AsyncClient(base_url=house.url, verify=False) as client:
        answer = await client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("with_length", [True, False])
async def test_a_body_over_the_limit(with_length: bool) -> None:
    async def pieces() -> Any:
        for _ in range(40):
            yield b" " * 1000

    async with (
        opened(web={"max_json_bytes": 10_000}) as house,
        httpx.AsyncClient(base_url=house.url, verify=False) as client,
    ):
        content = b" " * 40_000 if with_length else pieces()
        answer = await client.post("/v1/chat/completions", content=content)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


async def test_every_answer_has_its_headers(house: House) -> None:
    async with httpx.AsyncClient(base_url=house.url, verify=False) as client:
        for path in ("/v1/models", "/v1/nothing"):
            answer = await client.get(path)
            assert answer.headers["x-request-id"].startswith("req_")
            assert int(answer.headers["openai-processing-ms"]) >= 0


WILD = [
    b'{"model":1e999}',
    b'{"model":"\xff"}',
    b'{"model":"\\ud800"}',
    b'{"model":"mock/m","n":"\xff"}',
    b'{"model":"local/llama:latest","messages":[{"role":"user","content":"\xff"}]}',
    b'{"model":"local/llama:latest","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
    b'{"model":"local/llama:latest","messages":[{"role":"user","content":"x"}],"stop":"\xff"}',
    b'{"model":"mock/m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("body", WILD, ids=lambda body: repr(body[:60]))
async def test_json_that_cannot_be_kept_is_the_client_s_mistake(house: House, body: bytes) -> None:
    async with httpx.AsyncClient(base_url=house.url, verify=False) as client:
        answer = await client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_stream_options_that_cannot_be_read_are_left_out(house: House) -> None:
    house.upstream.on(NATIVE.chat, Reply([b"data: [DONE]\n\n"], 200, {"content-type": "text/event-stream"}))
    body = b'{"model":"mock/m","stream":true,"stream_options":{"\xff":1}}'
    async with httpx.AsyncClient(base_url=house.url, verify=False) as client:
        assert (await client.post("/v1/chat/completions", content=body)).status_code == 200
    assert house.upstream.seen[-1].body["stream_options"] == {"include_usage": True}


async def test_an_upstream_that_repeats_our_key_anywhere_tells_nobody(house: House) -> None:
    said = {"error": {"message": f"Bad key {KEY}"}}
    stream = {"content-type": "text/event-stream"}
    house.upstream.on(
        NATIVE.chat,
        json_reply({**said, "choices": []}),
        json_reply(said, 400, x_ratelimit_user=f"key {KEY}"),
        Reply([b'data: {"error": {"message": "Bad key %b"}}\n\ndata: [DONE]\n\n' % KEY.encode()], 200, stream),
    )
    async with httpx.AsyncClient(base_url=house.url, verify=False) as client:
        for streaming in (False, False, True):
            fields = {"model": "mock/m", "messages": HELLO, "stream": streaming}
            answer = await client.post("/v1/chat/completions", json=fields)
            assert "Bad key" in answer.text
            assert KEY not in answer.text
            assert KEY not in str(answer.headers)


async def test_places_come_back_whenever_clients_leave() -> None:
    provider = {"kind": "openai", "api_key": KEY, "models": ("m",), "concurrency": 3}
    rolled = random.Random(5)
    async with Upstream() as upstream:
        event = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
        stream = {"content-type": "text/event-stream"}
        upstream.on(NATIVE.chat, Reply([event, 0.02, event, 0.02, b"data: [DONE]\n\n"], 200, stream))
        provider["base_url"] = f"{upstream.url}/v1"
        async with opened(models={"providers": {"mock": provider}}) as house:

            async def impatient() -> None:
                with suppress(TimeoutError, openai.APIError):
                    async with asyncio.timeout(rolled.random() * 0.2), house.client() as client:
                        call = client.chat.completions.create(model="mock/m", messages=HELLO, stream=True)
                        async for _ in await call:
                            pass

            await asyncio.gather(*(impatient() for _ in range(60)))
            await house.idle()
            target = house.door._models.passthrough("mock/m")
            assert target is not None
            taken = [target.gate.try_acquire() for _ in range(4)]
            assert taken == [True, True, True, False]
