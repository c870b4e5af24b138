"""The same promises by the providers that need no network, and by llama.cpp's own server as a foreign upstream."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_gguf import write_tiny_gguf

from terrace.errors import Invalid, TerraceError, Unavailable
from terrace.models.base import (
    ChatRequest,
    Delta,
    Finish,
    Passage,
    Provider,
    RankedSentence,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from terrace.models.providers.fake import Fake
from terrace.models.providers.llamacpp import LlamaCpp
from terrace.models.providers.openai import OpenAI
from terrace.models.providers.quote import INTRODUCTION, NOTHING_FOUND, Quote
from terrace.models.providers.upstream import Upstream as Address
from terrace.models.transport import Transport, open_transport
from terrace.settings import Models

HELLO = ChatRequest("echo", [{"role": "user", "content": "hello to you all"}], {"max_tokens": 12, "seed": 1})
SERVER = """
import sys
from terrace.models.providers.llamacpp_child import serve
server = serve(sys.argv[1], "tiny", "sesame", 2048, 2, 1)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


class Ranker:
    """Says what it was told."""

    def __init__(self, *ranked: RankedSentence) -> None:
        self.ranked = list(ranked)
        self.questions: list[str] = []

    async def rank(self, question: str, passages: Any, scope: Any = None) -> list[RankedSentence]:
        self.questions.append(question)
        return self.ranked


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = open_transport(Models())
    yield transport
    await transport.close()


@pytest.fixture
async def llamacpp(gguf: Path, transport: Transport) -> AsyncIterator[LlamaCpp]:
    provider = LlamaCpp("local", gguf, transport)
    yield provider
    await provider.close()


@pytest.fixture
async def foreign(gguf: Path, transport: Transport) -> AsyncIterator[OpenAI]:
    """llama.cpp's server, met as any OpenAI-compatible server would be. It closes connections that it promised to keep:
    in a house Retry asks again, here the provider does."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(gguf), stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdin is not None
    assert child.stdout is not None
    address = (await asyncio.wait_for(child.stdout.readline(), 30)).decode().strip()
    headers = ((b"authorization", b"Bearer sesame"),)
    yield OpenAI("foreign", Address("llama.cpp", f"{address}/v1", headers, transport, ("sesame",), repeats=2))
    child.stdin.close()
    await child.wait()


@pytest.fixture(params=["fake", "quote", "llamacpp", "foreign"])
def provider(request: pytest.FixtureRequest) -> Provider:
    match request.param:
        case "fake":
            return Fake()
        case "quote":
            return Quote("quote", Ranker())
        case name:
            found: Provider = request.getfixturevalue(name)
            return found


async def collect(provider: Provider, request: ChatRequest = HELLO) -> list[Delta]:
    async with aclosing(provider.stream(request)) as deltas:
        return [delta async for delta in deltas]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


async def test_an_answer_is_text_then_usage_then_finish(provider: Provider) -> None:
    deltas = await collect(provider)
    assert all(isinstance(delta, TextDelta | ReasoningDelta) for delta in deltas[:-2])
    assert sum(delta.pieces if isinstance(delta, TextDelta) else 1 for delta in deltas[:-2]) > 2, "it streams"
    usage, finish = deltas[-2:]
    assert isinstance(usage, Usage)
    assert isinstance(finish, Finish)
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0
    assert text(deltas)


async def test_it_lists_itself(provider: Provider) -> None:
    infos = await provider.models()
    assert len(infos) == 1
    assert all(info.provider == provider.name and info.kind == "chat" for info in infos)


async def test_leaving_early_leaves_it_ready_for_the_next(provider: Provider) -> None:
    for _ in range(3):
        deltas = provider.stream(HELLO)
        await anext(deltas)
        await deltas.aclose()
    assert isinstance((await collect(provider))[-1], Finish)


async def test_several_answers_at_once(provider: Provider) -> None:
    answers = await asyncio.gather(*(collect(provider) for _ in range(4)))
    assert all(isinstance(deltas[-1], Finish) for deltas in answers)


# llama.cpp


async def test_llamacpp_counts_and_stops_at_the_limit(llamacpp: LlamaCpp) -> None:
    deltas = await collect(llamacpp)
    assert deltas[-1] == Finish("length")
    usage = deltas[-2]
    assert isinstance(usage, Usage)
    assert (usage.output_tokens, usage.estimated) == (12, False)


async def test_llamacpp_answers_again_when_its_process_was_killed(llamacpp: LlamaCpp) -> None:
    await collect(llamacpp)
    process = llamacpp._process
    assert process is not None
    process.child.kill()
    await process.child.wait()
    assert (await collect(llamacpp))[-1] == Finish("length")


async def test_llamacpp_ends_with_us(gguf: Path, transport: Transport) -> None:
    provider = LlamaCpp("local", gguf, transport)
    await collect(provider)
    process = provider._process
    assert process is not None
    await provider.close()
    assert not process.alive


async def test_llamacpps_server_takes_nobody_elses_requests(llamacpp: LlamaCpp, transport: Transport) -> None:
    await collect(llamacpp)
    assert llamacpp._server is not None
    stranger = OpenAI("stranger", Address("llama.cpp", llamacpp._server.upstream.base_url, (), transport))
    with pytest.raises(Unavailable) as caught:
        await collect(stranger)
    assert caught.value.code in ("upstream_denied", "upstream_broke")  # it may hang up before its 401 is read


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [(None, Invalid, "model_file_unreadable"), (b"PK\3\4", Invalid, "model_file_unreadable"),
     (b"GGUF" + b"\0" * 100, Unavailable, "model_not_loaded")],
    ids=["absent", "not-gguf", "damaged"],
)  # fmt: skip
async def test_llamacpp_says_what_is_wrong_with_its_file(
    tmp_path: Path, transport: Transport, content: bytes | None, kind: type[TerraceError], code: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind) as caught:
        await collect(LlamaCpp("local", path, transport))
    assert caught.value.code == code
    assert str(path) in caught.value.message


async def test_json_mode_reaches_the_foreign_upstream(foreign: OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    request = ChatRequest("any", HELLO.messages, {"max_tokens": 60, "response_format": wanted, "temperature": 0})
    assert text(await collect(foreign, request)).lstrip().startswith("{")


async def test_a_refusal_by_the_foreign_upstream_is_read(foreign: OpenAI) -> None:
    with pytest.raises(Invalid) as caught:
        await collect(foreign, ChatRequest("any", [{"role": "user", "content": "x" * 9000}]))
    assert "context" in caught.value.message
    assert "sesame" not in caught.value.message


# quote

PASSAGES = [Passage(1, "A", "Alpha is first. It is small."), Passage(2, "B", "Beta is second.")]


def sentence(passage: int, text: str, score: float) -> RankedSentence:
    return RankedSentence(passage, 0, len(text), text, score)


async def quoted(*ranked: RankedSentence, question: Any = "Which is first?") -> str:
    request = ChatRequest("quote", [{"role": "user", "content": question}], passages=PASSAGES)
    return text(await collect(Quote("quote", Ranker(*ranked)), request))


async def test_quote_says_what_it_is_when_there_is_nothing_to_quote() -> None:
    assert text(await collect(Quote("quote", Ranker()))) == INTRODUCTION


async def test_quote_says_when_nothing_answers() -> None:
    assert await quoted() == NOTHING_FOUND


async def test_quote_takes_the_sentences_nearly_as_good_as_the_best_each_once() -> None:
    answer = await quoted(
        sentence(1, "Alpha is first.", 1.0),
        sentence(2, "alpha  is first.", 0.9),
        sentence(2, "Beta is second.", 0.7),
        sentence(1, "It is small.", 0.5),
    )
    assert answer == "“Alpha is first.” [1]\n\n“Beta is second.” [2]"


async def test_quote_takes_three_at_most() -> None:
    answer = await quoted(*(sentence(1, f"Sentence {number}.", 1.0) for number in range(9)))
    assert answer.count("[1]") == 3


async def test_quote_asks_for_the_last_question_in_whatever_form() -> None:
    ranker = Ranker(sentence(1, "Alpha is first.", 1.0))
    messages = [
        {"role": "user", "content": "Before?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [{"type": "text", "text": "Which is first?"}, {"type": "image_url"}]},
    ]
    await collect(Quote("quote", ranker), ChatRequest("quote", messages, passages=PASSAGES))
    assert ranker.questions == ["Which is first?"]
