"""The words of the model room: a request in OpenAI's form goes in, deltas come out.

OpenAI's message format is the common tongue: what a provider does not speak natively it translates,
what nobody needs to read (tools, images, JSON schemas) passes through untouched.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from terrace.telemetry.calls import Call as Call
from terrace.telemetry.calls import Counting as Counting
from terrace.telemetry.calls import Demand as Demand
from terrace.telemetry.calls import Meter as Meter
from terrace.telemetry.calls import OpenCall as OpenCall
from terrace.telemetry.calls import Usage as Usage
from terrace.types import Scope

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

ANYBODY = Scope()  # may use every model


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`messages` and `options` are OpenAI's, unvalidated beyond shape; `options` holds whatever else was sent
    (temperature, max_tokens, tools, tool_choice, response_format, stop, seed ...)."""

    model: str
    messages: list[dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    passages: "Sequence[Passage]" = ()  # what retrieval found, for the quote model; others read it in the messages
    scope: Scope = ANYBODY  # whose call this is: whose limits and models count, who takes turns at a full provider
    patience: float = 0.0  # seconds it may wait for room under its limits
    requests: int = 0  # 1 where no door has counted the request
    sent: Callable[[], None] | None = None  # called when it goes on to the provider


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved piece of text as a model sees it: source number (from 1), title, text, score in 0..1."""

    number: int
    title: str
    text: str
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """`pieces`: in how many the upstream sent it, each a token or more."""

    text: str
    pieces: int = 1


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """What a model thinks aloud before it answers; shown apart, never part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call in OpenAI's streaming form: `{index, id?, type?, function: {name?, arguments?}}`."""

    call: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finish:
    reason: FinishReason = "stop"


Delta = TextDelta | ReasoningDelta | ToolCallDelta | Usage | Finish


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as listed: `id` is `<provider>/<model>`."""

    id: str
    provider: str
    name: str
    kind: Literal["chat", "embedding"] = "chat"
    context_tokens: int | None = None
    vision: bool | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    vectors: list[list[float]]
    usage: Usage


class Deltas(Protocol):
    """A running answer, such as an async generator. `aclose` stops it and its upstream call."""

    def __aiter__(self) -> AsyncIterator[Delta]: ...
    async def __anext__(self) -> Delta: ...
    async def aclose(self) -> None: ...


class Provider(Protocol):
    """One upstream. Errors are ours: Unavailable before the first delta may be retried or fall back;
    Invalid is the upstream refusing the request (its message kept, its secrets not); an upstream that dies
    mid-stream raises Unavailable with code `upstream_broke`."""

    @property
    def name(self) -> str: ...

    async def models(self) -> list[ModelInfo]:
        """What it offers now. Raises Unavailable when it cannot be asked."""

    def stream(self, request: ChatRequest) -> Deltas:
        """Deltas, then Usage, then Finish, exactly one of each of the last two. Closing the iterator (aclose)
        closes the upstream call. `request.model` is the provider's own name, without our prefix."""

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Raises Invalid when it has no embeddings."""

    async def close(self) -> None: ...


@runtime_checkable
class Pulls(Protocol):
    """A provider that can fetch a model (Ollama): yields {status, completed?, total?}."""

    def pull(self, model: str) -> AsyncIterator[dict[str, Any]]: ...


@runtime_checkable
class KnowsContext(Protocol):
    """A provider that must be asked how long a model's context is."""

    async def context_tokens(self, model: str) -> int | None: ...


@runtime_checkable
class KnowsVision(Protocol):
    """A provider that must be asked whether a model reads images."""

    async def vision(self, model: str) -> bool | None: ...


class Embedder(Protocol):
    """Text to unit vectors; the built-in one lives in `knowledge.embedding`."""

    @property
    def name(self) -> str:
        """Model and precision, such as `all-MiniLM-L6-v2/int8`; vectors of two names are never compared."""

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        """float32 array of shape (len(texts), dimensions), rows of length 1. `query` goes ahead of bulk work; `scope`
        pays where a provider embeds."""

    async def count_tokens(self, texts: Sequence[str]) -> list[int]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RankedSentence:
    """A sentence of a passage and how well it answers: `text == passage.text[start:end]`."""

    passage: int  # Passage.number
    start: int
    end: int
    text: str
    score: float
    doubtful: bool = False  # even the best of these may not answer


class SentenceRanker(Protocol):
    """What the quote model asks: which sentences answer best. Implemented in `knowledge.quoting`."""

    async def rank(
        self, question: str, passages: Sequence[Passage], scope: Scope | None = None
    ) -> list[RankedSentence]:
        """Best first. A sentence that does not answer at all is left out: with none left, the quote model says so."""
