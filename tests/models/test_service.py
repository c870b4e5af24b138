"""The model room's door: which model a name means, who answers when none is named, and what is said about it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from tests.models.upstream import Upstream, json_reply
from tests.models.wires import KEY, AnthropicWire, OllamaWire, OpenAIWire

from terrace.errors import Denied, Invalid, Missing, Unavailable
from terrace.models import catalog
from terrace.models.base import Call, ChatRequest, Counting, Finish, Passage, Provider, RankedSentence, TextDelta
from terrace.models.providers.fake import Fake
from terrace.models.service import Models, open_models
from terrace.models.transport import Transport, open_transport
from terrace.settings import Models as Settings
from terrace.types import Scope

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


class FirstSentence:
    """Ranks each passage's first sentence, in the order given."""

    async def rank(
        self, question: str, passages: Sequence[Passage], scope: Scope | None = None
    ) -> list[RankedSentence]:
        ends = [passage.text.find(".") + 1 for passage in passages]
        return [
            RankedSentence(passage.number, 0, end, passage.text[:end], 1.0 - 0.1 * position)
            for position, (passage, end) in enumerate(zip(passages, ends, strict=True))
        ]


Open = Callable[..., Models]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = open_transport(Settings())
    yield transport
    await transport.close()


@pytest.fixture
async def opened(transport: Transport) -> AsyncIterator[Open]:
    """Builds the room; nothing is found on this machine unless the test says so."""
    made: list[Models] = []

    def build(
        environ: dict[str, str] | None = None, others: Sequence[Provider] = (), meter: Any = None, **settings: Any
    ) -> Models:
        chosen = Settings.model_validate({"ollama_url": NOWHERE, "retries": 0, **settings})
        made.append(open_models(chosen, transport, FirstSentence(), meter, environ, others))
        return made[-1]

    yield build
    for models in made:
        await models.close()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


def ask(model: str = "auto", text: str = "hello", **more: Any) -> ChatRequest:
    return ChatRequest(model, [{"role": "user", "content": text}], **more)


async def said(models: Models, request: ChatRequest) -> tuple[str, str]:
    """Who answered, and what."""
    async with aclosing(models.stream(request)) as answer:
        text = "".join([delta.text async for delta in answer if isinstance(delta, TextDelta)])
        return answer.model, text


# Who answers


async def test_with_nothing_else_the_quote_model_answers_and_says_how_to_connect_one(opened: Open) -> None:
    models = opened()
    answering = await models.answering()
    assert answering.model == "quote"
    assert "quote" in answering.why
    assert answering.advice is not None
    assert "ollama pull" in answering.advice
    assert "OPENAI_API_KEY" in answering.advice
    assert (await said(models, ask()))[0] == "quote"


async def test_a_running_ollama_answers_with_the_chat_model_fetched_last(opened: Open, upstream: Upstream) -> None:
    wire = OllamaWire()
    upstream.on("/api/tags", json_reply(wire.models("nomic-embed-text:latest", "llama3.2:latest", "old:7b")))
    upstream.on("/api/show", json_reply({}))
    upstream.on("/api/chat", wire.answer("hi"))
    models = opened(ollama_url=upstream.url)
    assert await said(models, ask()) == ("ollama/llama3.2:latest", "hi")
    assert (await models.answering()).advice is None
    assert upstream.seen[-1].body["model"] == "llama3.2:latest"


async def test_an_ollama_without_a_chat_model_leads_to_advice_on_fetching_one(opened: Open, upstream: Upstream) -> None:
    upstream.on("/api/tags", json_reply(OllamaWire().models("nomic-embed-text:latest")))
    answering = await opened(ollama_url=upstream.url).answering()
    assert answering.model == "quote"
    assert "Ollama is running but has no chat model" in (answering.advice or "")


async def test_a_key_in_the_environment_is_enough(opened: Open, upstream: Upstream) -> None:
    wire = OpenAIWire()
    upstream.on("/v1/models", json_reply(wire.models("dall-e-3", "gpt-4", "gpt-4.1-mini-2025", "text-embedding-3")))
    upstream.on("/v1/chat/completions", wire.answer("hi"))
    models = opened({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{upstream.url}/v1"})
    assert await said(models, ask()) == ("openai/gpt-4.1-mini-2025", "hi")
    assert "openai/dall-e-3" not in [info.id for info in await models.list()]
    assert upstream.seen[-1].headers["authorization"] == f"Bearer {KEY}"
    assert "key" in (await models.answering()).why


async def test_an_anthropic_key_is_sent_as_anthropic_wants_it(opened: Open, upstream: Upstream) -> None:
    wire = AnthropicWire()
    upstream.on("/v1/models", json_reply(wire.models("claude-opus-9", "claude-sonnet-9")))
    upstream.on("/v1/messages", wire.answer("hi"))
    models = opened({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.url})
    assert await said(models, ask()) == ("anthropic/claude-sonnet-9", "hi")
    assert upstream.seen[-1].headers["x-api-key"] == KEY
    assert upstream.seen[-1].headers["anthropic-version"] == "2023-06-01"


async def test_what_is_configured_comes_before_keys(opened: Open, upstream: Upstream) -> None:
    upstream.on("/v1/models", json_reply(OpenAIWire().models("mine")))
    mine = {"kind": "openai", "base_url": f"{upstream.url}/v1"}
    models = opened({"OPENAI_API_KEY": KEY}, providers={"box": mine})
    assert (await models.answering()).model == "box/mine"
    assert [info.name for info in await models.providers()] == ["box", "ollama", "quote"]


async def test_a_configured_provider_that_is_away_is_named_with_its_reason(opened: Open) -> None:
    models = opened(providers={"box": {"kind": "openai", "base_url": f"{NOWHERE}/v1", "api_key": KEY}})
    answering = await models.answering()
    assert answering.model == "quote"
    assert "`box`" in answering.why
    (box, *_) = await models.providers()
    assert (box.state, box.base_url) == ("unreachable", f"{NOWHERE}/v1")
    assert KEY not in f"{answering}{box}"


async def test_an_ollama_that_comes_up_later_is_found(opened: Open) -> None:
    fake = Fake("later")
    fake.failure = Unavailable("Not there yet.", code="upstream_unreachable")
    models = opened(others=[fake])
    assert (await models.answering()).model == "quote"
    fake.failure = None
    assert (await models.answering()).model == "quote", "asked again within seconds"
    later = asyncio.get_running_loop().time() + catalog.RETRY_SECONDS
    for entry in models._catalog.entries:  # time passes
        entry._asked -= later
    assert await said(models, ask()) == ("later/echo", "hello")


async def test_starting_waits_for_nobody(opened: Open) -> None:
    asked = asyncio.Event()

    class Slow(Fake):
        async def models(self) -> Any:
            asked.set()
            await asyncio.Event().wait()

    models = opened(others=[Slow()])
    models.start()
    await asyncio.wait_for(asked.wait(), 20)
    assert (await said(models, ask()))[0] == "quote"


# Names


async def test_names(opened: Open) -> None:
    models = opened(others=[Fake("a", models=["x", "both"]), Fake("b", models=["org/y", "both"])])
    for name, expected in {
        "a/x": "a/x",
        "x": "a/x",
        "org/y": "b/org/y",
        "b/org/y": "b/org/y",
        "quote": "quote",
    }.items():
        assert (await models.resolve(name)).id == expected
    assert (await models.resolve(None)).id == "a/x"
    with pytest.raises(Invalid, match="`a/both` or `b/both`"):
        await models.resolve("both")


@pytest.mark.parametrize("name", ["lama3", "a/lama3", "ollama3", "LLAMA3"])
async def test_an_unknown_name_leads_to_near_ones(opened: Open, name: str) -> None:
    models = opened(others=[Fake("a", models=["llama3", "gemma"])])
    with pytest.raises(Missing) as caught:
        await models.resolve(name)
    assert caught.value.extra["near"] == ["a/llama3"]
    assert f"`{name}`" in caught.value.message


@pytest.mark.parametrize("name", ["box/", "/", "box", "x" * 5_000_000, "a/" * 100, "\0"])
async def test_what_is_no_name_at_all_is_refused_at_once(opened: Open, name: str) -> None:
    models = opened(providers={"box": {"kind": "openai", "base_url": f"{NOWHERE}/v1"}}, others=[Fake("a")])
    with pytest.raises(Missing) as caught:
        await models.resolve(name)
    assert len(caught.value.message) < 500


async def test_ollamas_latest_needs_no_saying(opened: Open, upstream: Upstream) -> None:
    upstream.on("/api/tags", json_reply(OllamaWire().models("llama3.2:latest")))
    models = opened(ollama_url=upstream.url)
    assert (await models.resolve("ollama/llama3.2")).id == "ollama/llama3.2:latest"
    assert (await models.resolve("llama3.2")).id == "ollama/llama3.2:latest"


async def test_an_upstreams_own_404_names_near_models_too(opened: Open, upstream: Upstream) -> None:
    upstream.on("/v1/models", json_reply(OpenAIWire().models("gpt-4o")))
    upstream.on("/v1/chat/completions", json_reply({"error": {"message": "no such model"}}, 404))
    models = opened(providers={"box": {"kind": "openai", "base_url": f"{upstream.url}/v1"}})
    await models.list()
    with pytest.raises(Missing) as caught:
        await said(models, ask("box/gpt-4oo"))
    assert caught.value.extra["near"] == ["box/gpt-4o"]


async def test_only_declared_models_are_offered_when_some_are(opened: Open, upstream: Upstream) -> None:
    upstream.on("/v1/models", json_reply(OpenAIWire().models("a", "b", "c")))
    box = {"kind": "openai", "base_url": f"{upstream.url}/v1", "models": ["b", "special"]}
    models = opened(providers={"box": box})
    assert [info.id for info in await models.list()] == ["box/b", "box/special", "quote"]
    with pytest.raises(Missing):
        await models.resolve("box/c")


async def test_the_configured_default_answers(opened: Open) -> None:
    models = opened(others=[Fake("a"), Fake("b", models=["mine"])], default="b/mine")
    assert (await said(models, ask()))[0] == "b/mine"
    assert (await models.answering()).why.startswith("It is the default model")


async def test_a_default_that_does_not_exist_is_explained_and_refused(opened: Open) -> None:
    models = opened(others=[Fake("a")], default="b/mine")
    answering = await models.answering()
    assert answering.model == "b/mine"
    assert "There is no model `b/mine`" in answering.why
    assert "TERRACE_MODELS__DEFAULT" in (answering.advice or "")
    with pytest.raises(Missing):
        await said(models, ask())


@pytest.mark.parametrize("name", ["a/b", "auto", "rag", ""])
def test_a_provider_needs_a_name_that_can_be_said(name: str) -> None:
    settings = Settings.model_validate({"providers": {name: {"kind": "quote"}}})
    with pytest.raises(Invalid):
        open_models(settings, None, FirstSentence())  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8080", "http://", "http://x:99999", "http://[::1"])
def test_a_base_url_must_be_one(url: str) -> None:
    settings = Settings.model_validate({"providers": {"box": {"kind": "openai", "base_url": url}}})
    with pytest.raises(Invalid, match="base_url"):
        open_models(settings, None, FirstSentence())  # type: ignore[arg-type]


# Answers


async def test_the_fallback_answers_and_its_name_is_told(opened: Open) -> None:
    away = Fake("a", [[Unavailable("Away.", code="upstream_unreachable")]])
    models = opened(others=[away, Fake("b", [["from b"]])], fallback=["b/echo", "quote"])
    assert await said(models, ask("a/echo")) == ("b/echo", "from b")


async def test_auto_moves_on_from_a_provider_found_to_be_away(opened: Open) -> None:
    away = Fake("a", [[Unavailable("Away.", code="upstream_unreachable")]])
    models = opened(others=[away, Fake("b", [["from b"]])])
    with pytest.raises(Unavailable):
        await said(models, ask())
    assert await said(models, ask()) == ("b/echo", "from b")


async def test_calls_are_capped_and_metered(opened: Open) -> None:
    calls: list[Call] = []
    go, full = asyncio.Event(), asyncio.Barrier(3)
    fake = Fake(scripts=[[full.wait, go.wait, "done"], [full.wait, go.wait, "done"], ["done"]])
    models = opened(others=[fake], meter=Counting(calls.append), concurrency=2, queue=1)
    running = [asyncio.create_task(said(models, ask())) for _ in range(3)]
    await full.wait()
    with pytest.raises(Unavailable) as caught:
        await said(models, ask())
    assert caught.value.code == "upstream_busy"
    assert caught.value.retry_after
    assert fake.running == 2
    go.set()
    assert {text for _, text in await asyncio.gather(*running)} == {"done"}
    assert [call.outcome for call in calls].count("ok") == 3
    assert [call.code for call in calls if call.outcome == "error"] == ["upstream_busy"]


async def test_leaving_an_answer_stops_it_upstream(opened: Open) -> None:
    fake = Fake(scripts=[["a", asyncio.Event().wait]])
    answer = opened(others=[fake]).stream(ask())
    await anext(answer)
    await answer.aclose()
    assert (fake.left, fake.running) == (1, 0)


async def test_the_quote_model_quotes_with_sources(opened: Open) -> None:
    passages = [
        Passage(1, "Tides", "The moon makes the tides. The sun helps."),
        Passage(2, "Sea", "High water comes twice a day. So does low water."),
    ]
    models = opened()
    answer = models.stream(ask("quote", "What makes the tides?", passages=passages))
    deltas = [delta async for delta in answer]
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    assert text == "“The moon makes the tides.” [1]\n\n“High water comes twice a day.” [2]"
    assert sum(isinstance(delta, TextDelta) for delta in deltas) > 2, "it streams"
    assert deltas[-1] == Finish("stop")


# The hot path


async def test_a_passthrough_is_known_without_asking(opened: Open, upstream: Upstream) -> None:
    upstream.on("/v1/models", json_reply(OpenAIWire().models("m")))
    box = {"kind": "openai", "base_url": f"{upstream.url}/v1/", "api_key": KEY, "concurrency": 5}
    models = opened(providers={"box": box}, others=[Fake("other")])
    await models.list()
    found = models.passthrough("box/m")
    assert found is not None
    assert (found.url, found.model, found.id) == (f"{upstream.url}/v1/chat/completions", "m", "box/m")
    assert dict(found.headers) == {b"authorization": f"Bearer {KEY}".encode()}
    assert found.gate.limit == 5
    assert models.passthrough("m") == found
    assert models.passthrough("other/echo") is None
    assert models.passthrough("auto") is None, "auto means other/echo here"
    assert models.passthrough("unheard-of") is None


async def test_auto_may_be_passed_through(opened: Open, upstream: Upstream) -> None:
    upstream.on("/v1/models", json_reply(OpenAIWire().models("m")))
    models = opened(providers={"box": {"kind": "openai", "base_url": f"{upstream.url}/v1"}})
    assert models.passthrough("auto") is None, "nobody was asked yet"
    await models.list()
    found = models.passthrough("auto")
    assert found is not None
    assert found.id == "box/m"


# Fetching models


async def test_a_model_is_fetched_with_progress_and_then_offered(opened: Open, upstream: Upstream) -> None:
    wire = OllamaWire()
    steps = [{"status": "pulling manifest"}, {"status": "pulling x", "total": 10, "completed": 4, "digest": "d"}]
    upstream.on("/api/pull", wire.reply([wire_line(step) for step in (*steps, {"status": "success"})]))
    upstream.on("/api/tags", json_reply({"models": []}), json_reply(wire.models("tiny:latest")))
    models = opened(ollama_url=upstream.url)
    assert "ollama/tiny:latest" not in [info.id for info in await models.list()]
    seen = [step async for step in models.pull("ollama/tiny")]
    assert {"status": "pulling x", "total": 10, "completed": 4} in seen
    assert next(seen.body for seen in upstream.seen if seen.path == "/api/pull")["model"] == "tiny"
    assert "ollama/tiny:latest" in [info.id for info in await models.list()]


async def test_a_model_that_cannot_be_fetched_says_why(opened: Open, upstream: Upstream) -> None:
    upstream.on("/api/pull", OllamaWire().reply([wire_line({"error": "pull model manifest: file does not exist"})]))
    models = opened(ollama_url=upstream.url)
    with pytest.raises(Missing, match=r"`nonsense`.*file does not exist"):
        assert [step async for step in models.pull("nonsense")] == []


def wire_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


# What a caller may use


def behind(*walls: Sequence[str]) -> Scope:
    return Scope("acme", "usr_ada", models=tuple(frozenset(wall) for wall in walls))


async def test_a_model_outside_a_wall_is_refused_whatever_way_it_is_asked_for(opened: Open) -> None:
    models = opened(others=[Fake("a", models=["x", "both"]), Fake("b", models=["y", "both"])])
    who = behind(["a/*"])
    for way in (
        models.resolve("b/y", who),
        models.resolve("y", who),
        models.embed("b/y", ["text"], who),
        models.context_tokens("b/y", who),
        said(models, ask("b/y", scope=who)),
    ):
        with pytest.raises(Denied) as caught:
            await way
        assert caught.value.code == "model_not_allowed"
        assert "`a/*`" in caught.value.message
        assert caught.value.extra["allowed"] == [["a/*"]]
    with pytest.raises(Denied):
        models.passthrough("b/y", who)
    assert [info.id for info in await models.list(who)] == ["a/x", "a/both"]
    assert (await models.resolve("both", who)).id == "a/both", "the only one of this name that they may use"


async def test_auto_and_the_fallbacks_pass_over_what_is_not_allowed(opened: Open) -> None:
    away = Fake("a", [[Unavailable("Away.", code="upstream_error")]])
    models = opened(others=[Fake("first"), away, Fake("b"), Fake("c")], fallback=("b/echo", "c/echo"))
    assert (await models.resolve(None, behind(["b/*", "c/*"]))).id == "b/echo"
    assert (await models.answering(behind(["c/*"]))).model == "c/echo"
    assert (await said(models, ask("a/echo", scope=behind(["[ac]/*"]))))[0] == "c/echo"
    with pytest.raises(Unavailable):
        await said(models, ask("a/echo", scope=behind(["a/*"])))


async def test_a_model_must_be_in_the_tenants_wall_and_in_the_keys(opened: Open) -> None:
    models = opened(others=[Fake("a", models=["x", "y"]), Fake("b", models=["x"])])
    who = behind(["a/*"], ["*/x"])
    assert (await models.resolve("auto", who)).id == "a/x"
    with pytest.raises(Denied, match=r"`a/\*`; and of these `\*/x`"):
        await models.resolve("a/y", who)
    with pytest.raises(Denied, match="None of the models you may use"):
        await models.resolve(None, behind(["gone/*"]))
    with pytest.raises(Denied):
        await models.answering(behind(["gone/*"]))


async def test_the_default_is_another_for_who_may_not_use_it(opened: Open) -> None:
    models = opened(others=[Fake("a"), Fake("b")], default="a/echo")
    assert (await models.resolve(None, behind(["b/*"]))).id == "b/echo"
    assert (await models.resolve(None)).id == "a/echo"
    assert (await models.answering(behind(["b/*"]))).model == "b/echo"


async def test_near_names_give_no_other_model_away(opened: Open) -> None:
    models = opened(others=[Fake("a", models=["llama3", "gemma"]), Fake("b", models=["llama4"])])
    with pytest.raises(Missing) as caught:
        await models.resolve("lama", behind(["b/*"]))
    assert "a/llama3" not in str(caught.value.extra)


async def test_embeddings_are_metered_for_whom_they_are(opened: Open) -> None:
    calls: list[Call] = []
    models = opened(others=[Fake()], meter=Counting(calls.append))
    await models.embed("fake/echo", ["one", "two"], Scope("acme"))
    assert [(call.operation, call.tenant, call.outcome) for call in calls] == [("embed", "acme", "ok")]
