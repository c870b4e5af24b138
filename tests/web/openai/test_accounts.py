"""Who may ask, what may still be used, and what each call is said to have come to."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from tests.models.upstream import CUT, HOLD, Reply, json_reply
from tests.web.openai.conftest import FOREIGN, NATIVE, House, opened

from terrace.errors import Denied, Limited
from terrace.telemetry.calls import Usage

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
WHOLE: dict[str, Any] = {
    "id": "chatcmpl-9", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}  # fmt: skip


async def ask(house: House, key: str = "anything", **fields: Any) -> Any:
    return await house.client(key).chat.completions.create(**{"model": "mock/m", "messages": HELLO, **fields})


async def refusal(house: House, key: str = "anything", **fields: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        await ask(house, key, **fields)
    return caught.value


# Who


async def test_a_key_that_nobody_has_is_refused_without_being_repeated(house: House) -> None:
    error = await refusal(house, "trc_secret_of_somebody")
    assert isinstance(error, openai.AuthenticationError)
    assert (error.code, error.type) == ("invalid_api_key", "invalid_request_error")
    assert error.response.headers["www-authenticate"] == "Bearer"
    assert "trc_secret" not in error.response.text
    assert house.limits.demands == house.upstream.seen[1:] == []


async def test_a_key_that_must_be_looked_up_first(house: House) -> None:
    house.upstream.on(NATIVE.chat, json_reply(WHOLE))
    assert (await ask(house, "late")).choices[0].message.content == "Hello!"


async def test_whoever_may_only_read_asks_no_model_but_may_see_them(house: House) -> None:
    error = await refusal(house, "reads")
    assert isinstance(error, openai.PermissionDeniedError)
    assert error.code == "not_permitted"
    assert "`chat`" in error.message
    assert "mock/m" in [model.id async for model in house.client("reads").models.list()]
    assert house.limits.counted == 0, "reading is not counted"


async def test_models_outside_a_key_s_walls_are_neither_listed_nor_asked(house: House) -> None:
    listed = [model.id async for model in house.client("walled").models.list()]
    assert "local/llama:latest" in listed
    assert not {"mock/m", "tiny"} & set(listed)
    error = await refusal(house, "walled")
    assert (error.status_code, error.code) == (403, "model_not_allowed")
    with pytest.raises(openai.PermissionDeniedError):
        await house.client("walled").embeddings.create(model="tiny", input="x")
    assert house.limits.demands == []


# What may still be used


async def test_a_limit_that_was_reached_says_which_and_when_to_come_back(house: House) -> None:
    house.limits.refusal = Limited(
        "This key may have 60 requests a minute.", code="limit_reached", retry_after=11.2,
        limit="requests_per_minute", subject="key", set_by="usr_1", value=60, used=60,
    )  # fmt: skip
    error = await refusal(house)
    assert isinstance(error, openai.RateLimitError)
    assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
    headers = error.response.headers
    assert headers["retry-after"] == "12"
    assert headers["ratelimit-policy"] == '"requests_per_minute";q=60;w=60'
    assert headers["ratelimit"] == '"requests_per_minute";r=0;t=12'
    assert "x-should-retry" not in headers


@pytest.mark.parametrize(
    ("limit", "retry_after", "code"),
    [
        ("tokens_per_minute", None, "rate_limit_exceeded"),
        ("money_per_day", 40_000.0, "insufficient_quota"),
        ("tokens_per_day", 40_000.0, "insufficient_quota"),
    ],
)
async def test_sdks_are_told_not_to_wait_in_vain(
    house: House, limit: str, retry_after: float | None, code: str
) -> None:
    house.limits.refusal = Limited("No.", code="limit_reached", retry_after=retry_after, limit=limit, value=5, used=5)
    error = await refusal(house)
    assert (error.status_code, error.code) == (429, code)
    assert error.response.headers["x-should-retry"] == "false"


async def test_a_limit_of_money_and_no_price(house: House) -> None:
    house.limits.refusal = Denied("Nobody knows what it costs.", code="price_unknown")
    error = await refusal(house)
    assert (error.status_code, error.code) == (403, "price_unknown")


@pytest.mark.parametrize("model", ["mock/m", "local/llama:latest", "rag", "tiny"])
async def test_every_request_counts_once_and_waits_when_it_wants_to(house: House, model: str) -> None:
    house.upstream.on(NATIVE.chat, json_reply(WHOLE))
    house.ollama.on(FOREIGN.chat, FOREIGN.answer("Hello!"))
    for headers in ({}, {"Prefer": "respond-async, wait=7"}):
        client = house.client(**headers)
        if model == "tiny":
            await client.embeddings.create(model=model, input="x")
        else:
            await client.chat.completions.create(model=model, messages=HELLO)
    assert house.limits.counted == 2
    assert house.limits.patience == [7.0]
    assert {scope.key for scope in house.limits.scopes} == {"key_1"}
    assert house.limits.open == 0


async def test_what_a_call_may_need_is_said_before_it_is_made(house: House) -> None:
    house.upstream.on(NATIVE.chat, json_reply(WHOLE))
    await ask(house, max_tokens=5, max_completion_tokens=9)
    (demand,) = house.limits.demands
    assert (demand.provider, demand.kind, demand.model, demand.operation) == ("mock", "openai", "m", "chat")
    assert (demand.output_tokens, demand.requests) == (9, 1)
    size = len(json.dumps({"model": "mock/m", "messages": HELLO, "max_tokens": 5, "max_completion_tokens": 9}))
    assert size // 2 <= demand.input_tokens <= size // 2 + 64


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {"max_tokens": 40}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_completion_tokens": None}, {"max_tokens": 40}),
        ({"max_tokens": -1}, {"max_tokens": 40}),
    ],
)
async def test_an_answer_without_a_bound_gets_the_reserved_one(
    house: House, asked: dict[str, Any], sent: dict[str, int]
) -> None:
    house.upstream.on(NATIVE.chat, json_reply(WHOLE))
    house.limits.bound = 40
    await ask(house, **asked)
    body = house.upstream.seen[-1].body
    assert {name: body[name] for name in body if name.startswith("max_")} == sent


async def test_without_limits_nothing_is_added(house: House) -> None:
    house.upstream.on(NATIVE.chat, json_reply(WHOLE))
    await ask(house, temperature=0.5)
    assert house.upstream.seen[-1].body == {"model": "m", "messages": HELLO, "temperature": 0.5}


async def test_copies_that_are_written_count(house: House) -> None:
    house.upstream.on("/v1/completions", json_reply({**WHOLE, "choices": []}))
    client = house.client()
    await client.completions.create(model="mock/m", prompt="x", max_tokens=10, best_of=3)
    house.limits.bound = 90
    await client.completions.create(model="mock/m", prompt="x", best_of=3)
    assert [demand.output_tokens for demand in house.limits.demands] == [30, None]
    assert [seen.body["max_tokens"] for seen in house.upstream.seen[-2:]] == [10, 30]


@pytest.mark.parametrize(("prompt", "copies"), [("x", 1), (["x", "y", "z"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
async def test_each_of_several_prompts_gets_an_answer(house: House, prompt: Any, copies: int) -> None:
    house.upstream.on("/v1/completions", json_reply({**WHOLE, "choices": []}))
    client = house.client()
    await client.completions.create(model="mock/m", prompt=prompt, max_tokens=10)
    house.limits.bound = 90
    await client.completions.create(model="mock/m", prompt=prompt)
    assert [demand.output_tokens for demand in house.limits.demands] == [10 * copies, None]
    assert [seen.body["max_tokens"] for seen in house.upstream.seen[-2:]] == [10, 90 // copies]


async def test_a_bound_that_is_no_number_is_named(house: House) -> None:
    error = await refusal(house, max_tokens="many")
    assert (error.status_code, error.param) == (400, "max_tokens")


# What it came to


async def test_a_call_is_settled_with_what_the_upstream_told(house: House) -> None:
    house.upstream.on(NATIVE.chat, json_reply(WHOLE))
    await ask(house)
    (call,) = house.limits.calls
    assert (call.outcome, call.code, call.usage, call.tenant) == ("ok", "", Usage(7, 3), "acme")


@pytest.mark.parametrize(
    ("texts", "output"),
    [
        (["one ", "two ", "three"], (3, 6)),  # a token a piece, and the events around them
        (["a longer text that came in one piece, of a hundred tokens or so. " * 6], (95, 105)),
        (["日本語のテキスト" * 10], (80, 100)),
    ],
)
async def test_a_stream_whose_usage_nobody_told_is_counted(
    house: House, texts: list[str], output: tuple[int, int]
) -> None:
    pieces = [*NATIVE.begin(), *map(NATIVE.text, texts), NATIVE.chunk({}, "stop"), *NATIVE.done]
    house.upstream.on(NATIVE.chat, NATIVE.reply(pieces))
    async for _ in await ask(house, stream=True):
        pass
    (call,), (demand,) = house.limits.calls, house.limits.demands
    assert call.usage is not None
    assert call.usage.estimated
    assert call.usage.input_tokens == demand.input_tokens
    assert output[0] <= call.usage.output_tokens <= output[1]


async def test_a_stream_that_its_client_leaves_costs_what_was_sent(house: House) -> None:
    house.upstream.on(NATIVE.chat, NATIVE.reply([NATIVE.text("Hel"), NATIVE.text("lo"), HOLD]))
    stream = await ask(house, stream=True)
    seen = 0
    async for _ in stream:
        seen += 1
        if seen == 2:
            break
    await stream.close()
    await house.idle()
    (call,) = house.limits.calls
    assert (call.outcome, call.usage) == ("cancelled", Usage(house.limits.demands[0].input_tokens, 2, estimated=True))


async def test_what_comes_as_the_client_leaves_counts_too(house: House) -> None:
    """Within the bound, as much again is reckoned with: the provider goes on until it hears of it."""
    house.limits.bound = 50
    house.upstream.on(NATIVE.chat, NATIVE.reply([NATIVE.text("Hel"), NATIVE.text("lo"), HOLD]))
    stream = await ask(house, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await house.idle()
    (call,) = house.limits.calls
    assert call.usage == Usage(house.limits.demands[0].input_tokens, 4, estimated=True)


async def test_usage_that_was_told_before_the_answer_was_there_is_not_all_of_it(house: House) -> None:
    early = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}}\n\n'
    house.upstream.on(NATIVE.chat, NATIVE.reply([early, *[NATIVE.text("word ")] * 5, CUT]))
    with pytest.raises(openai.APIError):
        async for _ in await ask(house, stream=True):
            pass
    (call,) = house.limits.calls
    assert call.usage is not None
    assert call.usage.estimated
    assert call.usage.output_tokens >= 5


async def test_an_answer_that_was_asked_for_and_never_came_costs_what_was_reserved(house: House) -> None:
    house.limits.bound = 50
    house.upstream.on(NATIVE.chat, Reply([CUT]))
    assert (await refusal(house)).status_code == 502
    house.upstream.on(NATIVE.chat, Reply([HOLD]))
    leaving = asyncio.ensure_future(ask(house))
    await asyncio.wait_for(house.upstream.held.wait(), 20)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await house.idle()
    assert [call.outcome for call in house.limits.calls] == ["error", "cancelled"]
    for call, demand in zip(house.limits.calls, house.limits.demands, strict=True):
        assert call.usage == Usage(demand.input_tokens, 50, estimated=True)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_what_the_provider_refused_costs_nothing(house: House, status: int) -> None:
    house.upstream.on(NATIVE.chat, json_reply({"error": {"message": "no"}}, status))
    await refusal(house)
    (call,) = house.limits.calls
    assert (call.outcome, call.usage) == ("error", None)


async def test_what_was_never_sent_costs_nothing() -> None:
    providers = {"away": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "models": ("m",)}}
    async with opened(models={"providers": providers}) as house:
        assert (await refusal(house, model="away/m")).status_code == 503
        (call,) = house.limits.calls
        assert (call.outcome, call.code, call.usage) == ("error", "upstream_unreachable", None)


async def test_each_attempt_is_a_call_and_all_are_one_request() -> None:
    async with opened(models={"retries": 1}) as house:
        house.limits.bound = 20
        house.upstream.on(NATIVE.chat, Reply([CUT]), json_reply(WHOLE))
        await ask(house)
        assert house.limits.counted == 1
        assert [call.outcome for call in house.limits.calls] == ["error", "ok"]
        assert house.limits.calls[0].usage == Usage(house.limits.demands[0].input_tokens, 20, estimated=True)
        assert house.limits.calls[1].usage == Usage(7, 3)


async def test_a_request_that_goes_on_to_another_model_is_one_request() -> None:
    async with opened(models={"fallback": ("local/llama:latest",)}) as house:
        house.upstream.on(NATIVE.chat, json_reply({"error": {"message": "no"}}, 500))
        house.ollama.on(FOREIGN.chat, FOREIGN.answer("Hello!"))
        assert (await ask(house)).choices[0].message.content == "Hello!"
        assert house.limits.counted == 1
        assert house.limits.open == 0
        assert house.limits.calls[-1].outcome == "ok"


async def test_embeddings_are_calls_too(house: House) -> None:
    answer = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [1.0]}], "model": "m",
              "usage": {"prompt_tokens": 4, "total_tokens": 4}}  # fmt: skip
    house.upstream.on("/v1/embeddings", json_reply(answer))
    house.limits.bound = 40
    client = house.client()
    await client.embeddings.create(model="mock/text-embedding-small", input="x", encoding_format="float")
    await client.embeddings.create(model="tiny", input="one two", encoding_format="float")
    assert "max_tokens" not in house.upstream.seen[-1].body
    assert [(demand.kind, demand.operation) for demand in house.limits.demands] == [
        ("openai", "embed"), ("builtin", "embed")
    ]  # fmt: skip
    assert [call.usage for call in house.limits.calls] == [Usage(4, 0), Usage(2, 0)]


async def test_other_methods_and_addresses_ask_who_it_is_first(house: House) -> None:
    async with httpx.AsyncClient(verify=False) as client:
        for path in ("/v1/nothing", "/v1/chat/completions", "/v1/models"):
            answer = await client.get(f"{house.url}{path}", headers={"authorization": "Bearer wrong"})
            assert answer.status_code == 401
