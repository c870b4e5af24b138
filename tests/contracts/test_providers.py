"""What every provider of models promises, asked of each over its own wire format."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from tests.models.upstream import CUT, HOLD, Reply, Upstream, json_reply
from tests.models.wires import KEY, WIRES, Wire

from terrace.errors import Invalid, Limited, Missing, TerraceError, Unavailable
from terrace.models.base import (
    ChatRequest,
    Delta,
    Finish,
    Provider,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from terrace.models.transport import Transport, open_transport
from terrace.settings import Models

HELLO = ChatRequest("m", [{"role": "user", "content": "hello"}])


@pytest.fixture(params=list(WIRES))
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


@pytest.fixture
async def upstream(wire: Wire) -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.on("/api/show", json_reply({"model_info": {"llama.context_length": 4096}}))
        yield upstream


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = open_transport(Models())
    yield transport
    await transport.close()


@pytest.fixture
def provider(wire: Wire, upstream: Upstream, transport: Transport) -> Provider:
    return wire.open(upstream.url, transport)


async def collect(provider: Provider, request: ChatRequest = HELLO) -> list[Delta]:
    async with aclosing(provider.stream(request)) as deltas:
        return [delta async for delta in deltas]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


async def failure(provider: Provider, request: ChatRequest = HELLO) -> TerraceError:
    """The error a call ends in; never with the key in it."""
    with pytest.raises(TerraceError) as caught:
        await collect(provider, request)
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value.extra)
    return caught.value


# Answers


async def test_an_answer_is_its_text_then_usage_then_finish(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.answer("Hel", "lo, ", "wörld"))
    deltas = await collect(provider)
    assert text(deltas) == "Hello, wörld"
    assert deltas[-2:] == [Usage(7, 3), Finish("stop")]
    assert sum(isinstance(delta, Usage | Finish) for delta in deltas) == 2


async def test_pieces_come_as_they_are_sent(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.reply([*wire.begin(), wire.text("first"), HOLD]))
    async with aclosing(provider.stream(HELLO)) as deltas:
        assert await asyncio.wait_for(anext(deltas), 20) == TextDelta("first")


async def test_half_an_emoji_costs_no_other_letter(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    """A server that cuts its text between the two halves escapes each on its own."""
    upstream.on(wire.chat, wire.answer("sun \ud83c", "\udf1e, C:\\ud83c, \U0001f31e"))
    assert text(await collect(provider)) == "sun \ufffd\ufffd, C:\\ud83c, \U0001f31e"


async def test_any_cut_of_the_bytes_gives_the_same_answer(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    whole = b"".join(piece for piece in wire.answer("smör", "gås").body if isinstance(piece, bytes))
    upstream.on(wire.chat, wire.reply([bytes([byte]) for byte in whole]), wire.reply([whole]))
    cut, at_once = await collect(provider), await collect(provider)
    assert text(cut) == text(at_once) == "smörgås"
    # What came together is one delta, and nobody knows what comes together.
    assert _pieces(cut) == _pieces(at_once) == 2
    assert _not_text(cut) == _not_text(at_once)


def _pieces(deltas: list[Delta]) -> int:
    return sum(delta.pieces for delta in deltas if isinstance(delta, TextDelta))


def _not_text(deltas: list[Delta]) -> list[Delta]:
    return [delta for delta in deltas if not isinstance(delta, TextDelta)]


async def test_reasoning_stays_apart(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.reply([*wire.begin(), wire.thought("Hm. "), wire.text("Yes."), *wire.end()]))
    deltas = await collect(provider)
    assert [delta for delta in deltas if isinstance(delta, ReasoningDelta)] == [ReasoningDelta("Hm. ")]
    assert text(deltas) == "Yes."


async def test_a_tool_call_comes_in_openais_form(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    call = wire.tool_call("call_1", "weather", ['{"city":', ' "Århus"}'])
    upstream.on(wire.chat, wire.reply([*wire.begin(), *call, *wire.end("tool_calls")]))
    deltas = await collect(provider)
    calls = [delta.call for delta in deltas if isinstance(delta, ToolCallDelta)]
    assert calls[0]["index"] == 0
    assert calls[0]["id"]
    assert calls[0]["type"] == "function"
    assert calls[0]["function"]["name"] == "weather"
    arguments = "".join(call["function"].get("arguments", "") for call in calls)
    assert arguments.replace(" ", "") == '{"city":"Århus"}'
    assert deltas[-1] == Finish("tool_calls")


async def test_an_answer_cut_by_its_limit_says_so(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.answer("a", reason="length"))
    assert (await collect(provider))[-1] == Finish("length")


async def test_the_system_message_and_sampling_reach_the_upstream(
    wire: Wire, upstream: Upstream, provider: Provider
) -> None:
    upstream.on(wire.chat, wire.answer("ok"))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    await collect(provider, ChatRequest("m", messages, {"temperature": 0.5, "max_tokens": 9, "stop": ["END"]}))
    sent = str(next(seen.body for seen in upstream.seen if seen.path == wire.chat))
    assert all(part in sent for part in ("Be brief.", "'hello'", "0.5", "9", "END", "'model': 'm'"))


async def test_an_answer_that_is_complete_is_not_waited_for(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.reply([*wire.begin(), wire.text("done"), *wire.end(), HOLD]))
    assert text(await asyncio.wait_for(collect(provider), 20)) == "done"


# Lists


async def test_models_are_named_after_their_provider(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.listing, json_reply(wire.models("big", "small")))
    assert [(info.id, info.name, info.kind) for info in await provider.models()] == [
        ("up/big", "big", "chat"),
        ("up/small", "small", "chat"),
    ]


@pytest.mark.parametrize("listed", [{"data": 3, "models": 3}, {}, [], "no"])
async def test_a_list_that_is_none_is_nonsense(
    wire: Wire, upstream: Upstream, provider: Provider, listed: object
) -> None:
    upstream.on(wire.listing, json_reply(listed))
    with pytest.raises(Unavailable) as caught:
        await provider.models()
    assert caught.value.code == "upstream_nonsense"


# Upstreams that misbehave


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, Invalid, "upstream_refused"),
        (401, Unavailable, "upstream_denied"),
        (403, Unavailable, "upstream_denied"),
        (404, Missing, "model_unknown"),
        (422, Invalid, "upstream_refused"),
        (429, Limited, "upstream_limited"),
        (500, Unavailable, "upstream_error"),
        (503, Unavailable, "upstream_error"),
        (529, Unavailable, "upstream_error"),
    ],
)
async def test_a_refusal_says_what_it_means(
    wire: Wire, upstream: Upstream, provider: Provider, status: int, kind: type[TerraceError], code: str
) -> None:
    upstream.on(wire.chat, json_reply({"error": {"message": f"No good: {KEY} sk-other-key-123456"}}, status))
    error = await failure(provider)
    assert (type(error), error.code) == (kind, code)
    assert "No good" in error.message
    assert "sk-other" not in error.message
    assert "`up`" in error.message


async def test_retry_after_is_kept(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, json_reply({"error": "slow down"}, 429, retry_after="7"))
    assert (await failure(provider)).retry_after == 7


async def test_a_web_page_instead_of_an_answer(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, Reply([b"<html>Welcome to nginx</html>"], headers={"content-type": "text/html"}))
    assert (await failure(provider)).code == "upstream_nonsense"


async def test_a_web_page_as_a_404_points_at_the_address(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, Reply([b"<html>Not found</html>"], 404, {"content-type": "text/html"}))
    error = await failure(provider)
    assert error.code == "upstream_wrong_url"
    assert "base_url" in error.message


async def test_an_upstream_that_is_not_there(wire: Wire, transport: Transport) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        provider = wire.open(f"http://127.0.0.1:{unused.getsockname()[1]}", transport)
        error = await failure(provider)
    assert (type(error), error.code) == (Unavailable, "upstream_unreachable")
    assert "`up`" in error.message


@pytest.mark.parametrize("last", [[CUT], []], ids=["reset", "ended"])
async def test_an_upstream_that_dies_mid_stream(
    wire: Wire, upstream: Upstream, provider: Provider, last: list[object]
) -> None:
    upstream.on(wire.chat, wire.reply([*wire.begin(), wire.text("so far"), *last]))
    async with aclosing(provider.stream(HELLO)) as deltas:
        assert await anext(deltas) == TextDelta("so far")
        with pytest.raises(Unavailable) as caught:
            await anext(deltas)
    assert caught.value.code == "upstream_broke"


async def test_an_error_in_the_middle_of_a_stream(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.reply([*wire.begin(), wire.text("so far"), wire.failure("out of memory")]))
    error = await failure(provider)
    assert isinstance(error, Unavailable)
    assert "out of memory" in error.message


async def test_nonsense_instead_of_a_stream(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.reply([b"\xff\xfe total nonsense\n\ndata: {{{\n\n", b"more\n\n"]))
    assert (await failure(provider)).code == "upstream_nonsense"


async def test_a_line_without_end_is_cut_off(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.reply([b"data: ", *[b"x" * 1_000_000] * 10, HOLD]))
    assert (await failure(provider)).code == "upstream_too_large"


async def test_a_header_alone_and_then_nothing(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.reply([]))
    assert (await failure(provider)).kind == "unavailable"


# Leaving


async def test_closing_the_stream_closes_the_upstream_call(wire: Wire, upstream: Upstream, provider: Provider) -> None:
    upstream.on(wire.chat, wire.reply([*wire.begin(), wire.text("first"), HOLD]))
    deltas = provider.stream(HELLO)
    await anext(deltas)
    await deltas.aclose()
    await asyncio.wait_for(upstream.gone.wait(), 20)


async def test_cancelling_a_waiting_reader_closes_the_upstream_call(
    wire: Wire, upstream: Upstream, provider: Provider
) -> None:
    upstream.on(wire.chat, wire.reply([HOLD]))
    waiting = asyncio.create_task(collect(provider))
    await asyncio.wait_for(upstream.held.wait(), 20)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(upstream.gone.wait(), 20)


async def test_a_finished_answer_leaves_the_connection_for_the_next(
    wire: Wire, upstream: Upstream, provider: Provider
) -> None:
    upstream.on(wire.chat, wire.answer("one"))
    await collect(provider)
    await collect(provider)
    assert upstream.connections == 1
