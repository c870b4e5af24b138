"""Ask again when an upstream could not begin, after a pause that grows and varies."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from terrace.errors import TerraceError
from terrace.models.base import ANYBODY, ChatRequest, Delta, Embeddings
from terrace.models.wrappers.base import Wrapper
from terrace.models.wrappers.metered import Metered
from terrace.types import Scope

PASSING = frozenset({"upstream_unreachable", "upstream_broke", "upstream_error", "upstream_limited"})
FIRST_PAUSE = 0.5  # seconds
LONGEST_PAUSE = 8.0


class Retry(Wrapper):
    """Repeats a call that failed before its first delta, at most `retries` times.

    The pause is drawn from [0, 0.5 * 2^n] seconds ("full jitter"), or what the upstream asked for. One that
    asks for more than 8 seconds is not waited for, nor are failures repeated that would only come again
    (a wrong key, a timeout that has used up the patience already). However often it is repeated, it is one request.
    """

    def __init__(self, inner: Metered, retries: int, first_pause: float = FIRST_PAUSE) -> None:
        super().__init__(inner)
        self._metered = inner
        self._retries = retries
        self._first_pause = first_pause

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        for attempt in range(self._retries + 1):
            begun = False
            try:
                async with aclosing(self.inner.stream(request)) as deltas:
                    async for delta in deltas:
                        begun = True
                        yield delta
                return
            except TerraceError as error:
                if begun or not self._worth_it(error, attempt):
                    raise
                pause = self._pause(error, attempt)
            await asyncio.sleep(pause)
            request = replace(request, requests=0)

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        scope: Scope = ANYBODY,
        *,
        patience: float = 0.0,
        requests: int = 0,
    ) -> Embeddings:
        for attempt in range(self._retries):
            try:
                return await self._metered.embed(model, texts, scope, patience=patience, requests=requests)
            except TerraceError as error:
                if not self._worth_it(error, attempt):
                    raise
                pause = self._pause(error, attempt)
            await asyncio.sleep(pause)
            requests = 0
        return await self._metered.embed(model, texts, scope, patience=patience, requests=requests)

    def _worth_it(self, error: TerraceError, attempt: int) -> bool:
        return attempt < self._retries and error.code in PASSING and (error.retry_after or 0) <= LONGEST_PAUSE

    def _pause(self, error: TerraceError, attempt: int) -> float:
        if error.retry_after is not None:
            return error.retry_after
        return random.uniform(0, min(LONGEST_PAUSE, self._first_pause * 2**attempt))
