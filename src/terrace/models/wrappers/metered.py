"""Every call is let pass before it is made, and leaves one record after."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import msgspec

from terrace.errors import Denied, Invalid, Limited, Missing, TerraceError
from terrace.models.base import (
    Call,
    ChatRequest,
    Delta,
    Demand,
    Embeddings,
    Finish,
    Meter,
    OpenCall,
    Provider,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from terrace.models.leaving import arrived, on_its_way
from terrace.models.providers.parts import answer_limit
from terrace.models.tokens import bound, bound_messages, estimate
from terrace.models.wrappers.base import Wrapper
from terrace.telemetry.calls import Outcome
from terrace.types import Scope

JOB_PATIENCE = 600.0  # seconds a job waits for room; who asked for it is not there to ask again
UNUSED = frozenset(
    {
        "upstream_unreachable", "upstream_denied", "upstream_wrong_url", "upstream_busy", "upstream_error",
        "extra_missing", "model_not_loaded",
    }
)  # fmt: skip
"""Failures of a provider that has used nothing. A refusal (Invalid, Limited and such) has not either."""
READ = ("tools", "functions", "response_format")  # options that a model reads as it does messages

_encode = msgspec.json.Encoder().encode


class Metered(Wrapper):
    """Asks a meter before each call, and tells it when the call ends: well, by an error, or because its reader left."""

    def __init__(self, inner: Provider, meter: Meter, kind: str) -> None:
        super().__init__(inner)
        self._meter = meter
        self._kind = kind

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        limit = answer_limit(request.options)
        demand = Demand(
            self.name, self._kind, request.model, "chat", _input_bound(request), limit, request.requests
        )  # fmt: skip
        opened = await self._begin(request.scope, demand, request.patience)
        watch = _Watch(demand, opened, request.scope)
        try:
            sent = replace(request, sent=watch.sent, options=_bounded(request.options, limit, opened.output_tokens))
            async with aclosing(self.inner.stream(sent)) as deltas:
                try:
                    async for delta in deltas:
                        watch.saw(delta)
                        yield delta
                except GeneratorExit:
                    await watch.left(deltas)
                    raise
                except asyncio.CancelledError:  # while it waited for more: what had come was seen
                    watch.abandoned = watch.usage is None
                    raise
        except Exception as error:
            watch.failed(error)
            raise
        finally:
            watch.end()

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        scope: Scope = Scope(),
        *,
        patience: float = 0.0,
        requests: int = 0,
    ) -> Embeddings:
        tokens = sum(bound(text.encode("utf-8", "replace")) for text in texts)
        demand = Demand(self.name, self._kind, model, "embed", tokens, None, requests)
        watch = _Watch(demand, await self._begin(scope, demand, patience), scope)
        watch.sent()
        try:
            embeddings = await self.inner.embed(model, texts)
            watch.usage, watch.outcome = embeddings.usage, "ok"
            return embeddings
        except Exception as error:
            watch.failed(error)
            raise
        finally:
            watch.end()

    async def _begin(self, scope: Scope, demand: Demand, patience: float) -> OpenCall:
        if scope.job is not None:
            patience = JOB_PATIENCE
        return await self._meter.wait(scope, demand, patience)


def _input_bound(request: ChatRequest) -> int:
    read = {name: request.options[name] for name in READ if request.options.get(name)}
    return bound_messages(request.messages) + (bound(_encode(read)) if read else 0)


def _bounded(options: dict[str, object], limit: int | None, tokens: int | None) -> dict[str, object]:
    """With the bound that was reserved for, where the caller named none."""
    if limit is not None or tokens is None:
        return options
    kept = {name: value for name, value in options.items() if name != "max_completion_tokens"}
    return {**kept, "max_tokens": tokens}


class _Watch:
    """A call until proven otherwise is cancelled."""

    def __init__(self, demand: Demand, opened: OpenCall, scope: Scope) -> None:
        self._demand = demand
        self._opened = opened
        self._tenant = scope.tenant
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()
        self._first: float | None = None
        self._sent = False
        self._texts: list[str] = []
        self._pieces = 0
        self.abandoned = False  # its reader went before its end
        self._spared = False  # it failed in a way that used nothing
        self.outcome: Outcome = "cancelled"
        self.code = ""
        self.usage: Usage | None = None

    def sent(self) -> None:
        self._sent = True

    def saw(self, delta: Delta) -> None:
        if isinstance(delta, Usage):
            self.usage = delta
            return
        if isinstance(delta, Finish):
            self.outcome = "ok"
            return
        if self._first is None:
            self._first = self._clock() - self._started
        self._pieces += delta.pieces if isinstance(delta, TextDelta) else 1
        self._texts.append(str(delta.call.get("function", "")) if isinstance(delta, ToolCallDelta) else delta.text)

    async def left(self, deltas: AsyncIterator[Delta]) -> None:
        """Nobody reads on; what has come by now was written all the same."""
        self.abandoned = self.usage is None
        async for delta in arrived(deltas):
            self.saw(delta)
        self.outcome = "cancelled"

    def failed(self, error: Exception) -> None:
        self.outcome, self.code = "error", error.code if isinstance(error, TerraceError) else "internal"
        self._spared = isinstance(error, Invalid | Limited | Missing | Denied) or self.code in UNUSED

    def end(self) -> None:
        demand = self._demand
        self._opened.end(
            Call(
                provider=demand.provider,
                model=demand.model,
                operation=demand.operation,
                outcome=self.outcome,
                code=self.code,
                duration=self._clock() - self._started,
                first_token=self._first,
                usage=self._used(),
                tenant=self._tenant,
            )
        )

    def _used(self) -> Usage | None:
        """What it was told to have used, or may have used at the most."""
        if self.usage is not None and not self.usage.estimated:
            return self.usage
        if self._first is None and self.usage is None and (not self._sent or self._spared):
            return None
        output = self._opened.answer_tokens if self._first is None and self.usage is None else self._seen()
        return Usage(self._demand.input_tokens, output, estimated=True)

    def _seen(self) -> int:
        """Tokens of the answer by our count, and what may be on its way when its reader went."""
        seen = max(self._pieces, estimate("".join(self._texts)))
        if not self.abandoned or self._first is None or self.usage is not None:
            return seen
        since = self._clock() - self._started - self._first
        return max(seen, min(seen + on_its_way(seen, since), self._opened.answer_tokens))
