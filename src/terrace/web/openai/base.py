"""What the door asks of the rooms behind it, and the ASGI words it uses."""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from terrace.accounts.base import Caller
from terrace.models.base import ChatRequest, Delta, Embeddings, ModelInfo
from terrace.models.transport.base import Headers
from terrace.telemetry.calls import Meter
from terrace.types import Scope

Message = MutableMapping[str, Any]
ASGIScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Doorkeeper(Protocol):
    """Who calls; `terrace.web.access.Doorkeeper` is one."""

    def known(self, asgi: ASGIScope) -> Caller | None:
        """Without I/O; None when `authenticate` has to look. Raises Unauthenticated, Denied."""

    async def authenticate(self, asgi: ASGIScope) -> Caller:
        """Raises Unauthenticated or Denied."""


class Limits(Meter, Protocol):
    """What may still be used; `terrace.accounts.limits.memory.MemoryLimits` is one."""

    @property
    def shared(self) -> bool:
        """Whether other processes have to be asked: then `wait`, even if nobody is to wait."""

    async def count_waiting(self, scope: Scope, patience: float) -> None:
        """One request that is no single model call; waits in turn for room. Raises Limited."""


class Gate(Protocol):
    """Places at an upstream."""

    def try_acquire(self) -> bool: ...
    async def acquire(self, scope: Scope | None) -> None: ...
    def release(self) -> None: ...


class Passthrough(Protocol):
    """An OpenAI-compatible upstream that takes the client's own bytes. `url` ends in /chat/completions; `headers`
    hold its key; `model` is its own name for the model and `id` the public one."""

    @property
    def url(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def model(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def gate(self) -> Gate: ...


class Running(Protocol):
    """An answer under way; `model` is who answers, certain once the first delta is there."""

    @property
    def model(self) -> str: ...
    def __aiter__(self) -> AsyncIterator[Delta]: ...
    async def aclose(self) -> None: ...


class Models(Protocol):
    """What the door asks of the model room; `terrace.models.service.Models` is one."""

    def passthrough(self, model: str | None, scope: Scope) -> Passthrough | None: ...
    async def resolve(self, model: str | None, scope: Scope) -> object: ...
    def stream(self, request: ChatRequest) -> Running: ...
    async def embed(
        self, model: str, texts: Sequence[str], scope: Scope, *, patience: float = 0.0, requests: int = 0
    ) -> Embeddings: ...
    async def list(self, scope: Scope) -> list[ModelInfo]: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Where an answer comes from, as /api/chat shows it; goes into the extra field `sources`. A later one replaces an
    earlier one: first what was found, at the end what was cited."""

    items: Sequence[dict[str, Any]]


class RAGAnswer(Protocol):
    """Deltas and Sources of an answer from documents, ending in Usage and Finish as every answer does."""

    def __aiter__(self) -> AsyncIterator[Delta | Sources]: ...
    async def aclose(self) -> None: ...


class Answerer(Protocol):
    """Answers from documents: what `rag` and `rag:<collection>` mean."""

    def answer(
        self, scope: Scope, messages: list[dict[str, Any]], options: dict[str, Any], collections: Sequence[str]
    ) -> RAGAnswer:
        """`collections` holds names or ids; empty means all. Raises Missing for one that is not there."""

    async def collections(self, scope: Scope) -> Sequence[str]:
        """Names, for the list of models."""
