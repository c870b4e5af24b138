"""Every call leaves one record."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal

from terrace.errors import TerraceError
from terrace.models.base import Call, ChatRequest, Delta, Embeddings, Finish, Meter, Provider, Usage
from terrace.models.wrappers.base import Wrapper
from terrace.types import Scope


class Metered(Wrapper):
    """Tells a meter of each call when it ends: well, by an error, or because its reader left."""

    def __init__(self, inner: Provider, meter: Meter) -> None:
        super().__init__(inner)
        self._meter = meter

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        watch = _Watch(self.name, request.model, "chat", request.scope)
        try:
            async with aclosing(self.inner.stream(request)) as deltas:
                async for delta in deltas:
                    watch.saw(delta)
                    yield delta
        except Exception as error:
            watch.failed(error)
            raise
        finally:
            self._meter.record(watch.call())

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        watch = _Watch(self.name, model, "embed", None)
        try:
            embeddings = await self.inner.embed(model, texts)
            watch.usage, watch.outcome = embeddings.usage, "ok"
            return embeddings
        except Exception as error:
            watch.failed(error)
            raise
        finally:
            self._meter.record(watch.call())


class _Watch:
    """A call until proven otherwise is cancelled."""

    def __init__(self, provider: str, model: str, operation: Literal["chat", "embed"], scope: Scope | None) -> None:
        self._provider = provider
        self._model = model
        self._operation = operation
        self._tenant = scope.tenant if scope else None
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()
        self._first: float | None = None
        self.outcome: Literal["ok", "cancelled", "error"] = "cancelled"
        self.code = ""
        self.usage: Usage | None = None

    def saw(self, delta: Delta) -> None:
        if isinstance(delta, Usage):
            self.usage = delta
        elif isinstance(delta, Finish):
            self.outcome = "ok"
        elif self._first is None:
            self._first = self._clock() - self._started

    def failed(self, error: Exception) -> None:
        self.outcome, self.code = "error", error.code if isinstance(error, TerraceError) else "internal"

    def call(self) -> Call:
        return Call(
            provider=self._provider,
            model=self._model,
            operation=self._operation,
            outcome=self.outcome,
            code=self.code,
            duration=self._clock() - self._started,
            first_token=self._first,
            usage=self.usage,
            tenant=self._tenant,
        )
