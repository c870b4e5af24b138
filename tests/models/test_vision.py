"""Which models read images: told by providers, else by names; and which one pictures go to."""

import pytest
from tests.models.upstream import Upstream, json_reply
from tests.models.wires import NoRanker

from terrace.models.names import sees
from terrace.models.service import open_models
from terrace.models.transport import open_transport
from terrace.settings import Models as Settings
from terrace.types import Scope

SEEING = (
    "gpt-4o-mini gpt-5-mini openai/gpt-4.1 o4-mini claude-sonnet-4-5 claude-3-5-haiku-latest qwen2.5-vl-7b "
    "Qwen2.5-VL-72B-Instruct llava:13b llama3.2-vision llama4:scout gemma3:12b gemini-2.5-flash pixtral-12b"
)
BLIND = "gpt-3.5-turbo gpt-4 gpt-4-0613 o1-mini claude-2.1 gemma3:1b"
UNKNOWN = "qwen3 llama3.2 evlog-7b echo1"


@pytest.mark.parametrize(("names", "known"), [(SEEING, True), (BLIND, False), (UNKNOWN, None)])
def test_what_a_name_gives_away(names: str, known: bool | None) -> None:
    assert {name: sees(name) for name in names.split()} == dict.fromkeys(names.split(), known)


OPENROUTER = {"data": [
    {"id": "a/blind", "architecture": {"input_modalities": ["text"]}},
    {"id": "b/eyes", "architecture": {"input_modalities": ["text", "image"]}},
]}  # fmt: skip
MISTRAL = {
    "data": [{"id": "small", "capabilities": {"vision": True}}, {"id": "tiny", "capabilities": {"vision": False}}]
}


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [(OPENROUTER, "lab/b/eyes"), (MISTRAL, "lab/small"), ({"data": [{"id": "words-only"}]}, None)],
    ids=["OpenRouter", "Mistral", "nobody"],
)
async def test_pictures_go_to_a_model_that_reads_them(listed: object, chosen: str | None) -> None:
    async with Upstream() as upstream:
        upstream.on("/v1/models", json_reply(listed))
        provider = {"kind": "openai", "base_url": f"{upstream.url}/v1", "api_key": "k"}
        settings = Settings.model_validate({"discover": False, "providers": {"lab": provider}})
        transport = open_transport(settings)
        models = open_models(settings, transport, NoRanker())
        assert await models.seeing() == chosen
        assert await models.seeing(Scope(models=(frozenset({"elsewhere/*"}),))) is None
        await models.close()
        await transport.close()


async def test_ollama_is_asked_what_its_models_can() -> None:
    async with Upstream() as upstream:
        listed = [{"name": "ours:latest", "modified_at": "2"}, {"name": "other:latest", "modified_at": "1"}]
        upstream.on("/api/tags", json_reply({"models": listed}))
        upstream.on("/api/show", json_reply({"capabilities": ["completion"]}), json_reply({"capabilities": ["vision"]}))
        settings = Settings.model_validate(
            {"discover": False, "providers": {"home": {"kind": "ollama", "base_url": upstream.url}}}
        )
        transport = open_transport(settings)
        models = open_models(settings, transport, NoRanker())
        assert await models.seeing() == "home/other:latest"
        assert await models.sees("home/ours:latest") is False
        await models.close()
        await transport.close()


async def test_the_default_model_is_taken_when_it_reads_images() -> None:
    provider = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "models": ["pixtral-large", "gpt-4o"]}
    settings = Settings.model_validate({"discover": False, "default": "lab/gpt-4o", "providers": {"lab": provider}})
    transport = open_transport(settings)
    models = open_models(settings, transport, NoRanker())
    assert await models.seeing() == "lab/gpt-4o"
    await models.close()
    await transport.close()
