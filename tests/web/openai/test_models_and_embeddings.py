"""The list of models, and embeddings by the built-in model, an OpenAI-compatible upstream and another."""

from typing import Any

import httpx
import openai
import pytest
from tests.models.upstream import json_reply
from tests.web.openai.conftest import House


async def test_models_are_listed(house: House) -> None:
    listed = {model.id: model.owned_by async for model in house.client().models.list()}
    assert listed == {
        "auto": "terrace", "rag": "terrace", "rag:harbours": "terrace", "rag:ships": "terrace", "tiny": "terrace",
        "mock/m": "mock", "mock/text-embedding-small": "mock", "local/llama:latest": "local",
        "quote": "quote",
    }  # fmt: skip


@pytest.mark.parametrize("model", ["auto", "rag:ships", "mock/m", "local/llama:latest"])
async def test_a_model_is_shown(house: House, model: str) -> None:
    assert (await house.client().models.retrieve(model)).id == model
    async with httpx.AsyncClient(verify=False) as client:  # a slash may be escaped or not
        assert (await client.get(f"{house.url}/v1/models/{model}")).json()["id"] == model


async def test_an_unknown_model_is_not_found(house: House) -> None:
    with pytest.raises(openai.NotFoundError):
        await house.client().models.retrieve("nobody/nothing")


@pytest.mark.parametrize("form", [None, "float", "base64"])
async def test_the_built_in_model(house: House, form: Any) -> None:
    """Left alone, the SDK asks for base64 and decodes it."""
    more = {} if form is None else {"encoding_format": form}
    answer = await house.client().embeddings.create(model="tiny", input=["one two", "x"], **more)
    if form != "base64":
        assert [each.embedding for each in answer.data] == [[7.0, 1.0, 0.0], [1.0, 1.0, 0.0]]
    else:
        assert isinstance(answer.data[0].embedding, str)
    assert [each.index for each in answer.data] == [0, 1]
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("tiny", 3, 3)


async def test_one_string_is_one_vector(house: House) -> None:
    answer = await house.client().embeddings.create(model="tiny/int8", input="four")
    assert [each.embedding for each in answer.data] == [[4.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": []}, "input", "invalid_parameter"),
        ({"input": ""}, "input", "invalid_parameter"),
        ({"input": ["a", ""]}, "input", "invalid_parameter"),
        ({"input": {"a": 1}}, "input", "invalid_parameter"),
        ({"input": ["a"] * 2049}, "input", "invalid_parameter"),
        ({"input": [1, 2, 3]}, "input", "tokens_unsupported"),
        ({"input": [[1], [2]]}, "input", "tokens_unsupported"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_parameter"),
        ({"input": "a", "dimensions": 2}, "dimensions", "unsupported_parameter"),
        ({"input": "a", "dimensions": "x"}, "dimensions", "invalid_parameter"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_refused(house: House, fields: dict[str, Any], param: str, code: str) -> None:
    async with httpx.AsyncClient(verify=False) as client:
        answer = await client.post(f"{house.url}/v1/embeddings", json={"model": "tiny", **fields})
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)


async def test_an_openai_compatible_upstream_s_embeddings_pass_through(house: House) -> None:
    said = {
        "object": "list", "model": "text-embedding-small", "usage": {"prompt_tokens": 4, "total_tokens": 4},
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}],
    }  # fmt: skip
    house.upstream.on("/v1/embeddings", json_reply(said))
    answer = await house.client().embeddings.create(model="mock/text-embedding-small", input=[[1, 2]], dimensions=2)
    assert answer.data[0].embedding == [0.25, 0.5]
    assert house.upstream.seen[-1].body["input"] == [[1, 2]], "its own tokens are its own matter"
    (call,) = house.limits.calls
    assert call.usage is not None
    assert (call.operation, call.usage.input_tokens, call.usage.output_tokens) == ("embed", 4, 0)


async def test_another_provider_s_embeddings_are_translated(house: House) -> None:
    house.ollama.on("/api/embed", json_reply({"embeddings": [[0.25, 0.5]], "prompt_eval_count": 4}))
    answer = await house.client().embeddings.create(model="local/llama:latest", input="four words of text")
    assert answer.data[0].embedding == [0.25, 0.5]
