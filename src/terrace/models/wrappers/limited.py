"""At most so many calls at a time; a bounded line behind them in which tenants take turns."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from terrace.errors import Unavailable
from terrace.models.base import ChatRequest, Delta, Embeddings, Provider
from terrace.models.wrappers.base import Wrapper
from terrace.types import DEFAULT_TENANT, Scope


class Gate:
    """`limit` calls at a time, `queue` more may wait up to `wait` seconds, everybody else is refused at once.

    A place that falls free goes to the next tenant in turn, so one that floods waits behind its own calls
    and not others behind it. Not safe across threads: one gate belongs to one event loop.
    """

    def __init__(self, name: str, limit: int, queue: int, wait: float) -> None:
        self.name = name
        self.limit = limit
        self.queue = queue
        self.wait = wait
        self.active = 0
        self.waiting = 0
        self.refused = 0
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def enter(self, scope: Scope | None) -> AsyncIterator[None]:
        await self.acquire(scope)
        try:
            yield
        finally:
            self.release()

    def try_acquire(self) -> bool:
        """Take a place if one is free; the hot path's way in. A free place means that nobody waits."""
        if self.active >= self.limit:
            return False
        self.active += 1
        return True

    async def acquire(self, scope: Scope | None) -> None:
        """Take a place, waiting for one in turn. Unavailable (`upstream_busy`) when the line is full or slow."""
        if self.try_acquire():
            return
        if self.waiting >= self.queue:
            raise self._refusal("too many calls are waiting for it already")
        tenant = scope.tenant if scope else DEFAULT_TENANT
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(tenant, deque()).append(turn)
        self.waiting += 1
        try:
            async with asyncio.timeout(self.wait):
                await turn
        except BaseException as error:
            self._leave(tenant, turn)
            if isinstance(error, TimeoutError):
                raise self._refusal(f"no place fell free within {self.wait:g} seconds") from None
            raise

    def release(self) -> None:
        """Give the place to the next tenant in turn, or back."""
        while self._lines:
            tenant, line = self._lines.popitem(last=False)
            turn = line.popleft()
            if line:
                self._lines[tenant] = line  # to the end of the round
            self.waiting -= 1
            if not turn.done():
                turn.set_result(None)
                return
        self.active -= 1

    def _leave(self, tenant: str, turn: asyncio.Future[None]) -> None:
        """Somebody stops waiting: out of the line, or, when a place was just handed over, on with it."""
        if turn.done() and not turn.cancelled():
            self.release()
            return
        line = self._lines.get(tenant)
        if line is not None and turn in line:
            line.remove(turn)
            self.waiting -= 1
            if not line:
                del self._lines[tenant]

    def _refusal(self, why: str) -> Unavailable:
        self.refused += 1
        # Whoever waits now has been served or sent away after `wait` seconds; sooner there is little hope.
        return Unavailable(
            f"{self.name} is busy: {why}. Try again in a moment.",
            code="upstream_busy",
            retry_after=max(1.0, self.wait),
        )


class Limited(Wrapper):
    """A provider behind a gate. A stream holds its place until it ends or is closed."""

    def __init__(self, inner: Provider, gate: Gate) -> None:
        super().__init__(inner)
        self._gate = gate

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async with self._gate.enter(request.scope), aclosing(self.inner.stream(request)) as deltas:
            if request.sent is not None:
                request.sent()
            async for delta in deltas:
                yield delta

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        async with self._gate.enter(None):
            return await self.inner.embed(model, texts)
