"""No answer is waited for without end."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from terrace.errors import Unavailable
from terrace.models.base import ChatRequest, Delta, Embeddings, Provider
from terrace.models.wrappers.base import Wrapper


class Timeouts(Wrapper):
    """Bounds, in seconds, the wait for the first delta, between two deltas, and for the whole answer.

    Only waiting for the upstream counts, not the time its reader takes. Raises Unavailable (`upstream_timeout`
    before the first delta or past `total`, `upstream_stalled` in between).
    """

    def __init__(self, inner: Provider, first: float, idle: float, total: float) -> None:
        super().__init__(inner)
        self._first = first
        self._idle = idle
        self._total = total

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        clock = asyncio.get_running_loop().time
        patience, left, begun = self._first, self._total, False
        async with aclosing(self.inner.stream(request)) as deltas:
            while True:
                started = clock()
                try:
                    async with asyncio.timeout(min(patience, left)):
                        delta = await anext(deltas, None)
                except TimeoutError:
                    raise self._late(begun, left <= patience) from None
                if delta is None:
                    return
                left -= clock() - started
                patience, begun = self._idle, True
                yield delta

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        try:
            async with asyncio.timeout(self._total):
                return await self.inner.embed(model, texts)
        except TimeoutError:
            raise self._late(False, True) from None

    def _late(self, begun: bool, in_all: bool) -> Unavailable:
        if in_all:
            return Unavailable(
                f"`{self.name}` took more than {self._total:g} seconds for its answer and was stopped.",
                code="upstream_timeout",
            )
        if begun:
            return Unavailable(
                f"`{self.name}` sent nothing more for {self._idle:g} seconds. Try again.", code="upstream_stalled"
            )
        return Unavailable(
            f"`{self.name}` did not begin to answer within {self._first:g} seconds. It may be busy or loading the "
            "model; try again.",
            code="upstream_timeout",
        )
