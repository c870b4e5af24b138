"""No answer is waited for without end."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from math import inf
from typing import Any

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
        alarm = _Alarm()
        patience, left, begun = self._first, self._total, False
        try:
            async with aclosing(self.inner.stream(request)) as deltas:
                while True:
                    started = alarm.set(min(patience, left))
                    try:
                        delta = await anext(deltas, None)
                    except asyncio.CancelledError:
                        if alarm.rang():
                            raise self._late(begun, left <= patience) from None
                        raise
                    finally:
                        alarm.stop()
                    if delta is None:
                        return
                    left -= alarm.clock() - started
                    patience, begun = self._idle, True
                    yield delta
        finally:
            alarm.close()

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


class _Alarm:
    """Cancels the task that waits too long. As `asyncio.timeout`, with one timer for a whole stream instead of one for
    each piece of it: it looks again when it was set anew meanwhile."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.clock = self._loop.time
        self._task: asyncio.Task[Any] | None = None  # that waits
        self._cancelling = 0  # how often others wanted it cancelled when it began to wait
        self._due = 0.0
        self._rings = False
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = inf

    def set(self, seconds: float) -> float:
        """The current task waits now, for so long at most. Returns the time."""
        now = self.clock()
        self._task = task = asyncio.current_task()
        assert task is not None
        self._cancelling = task.cancelling()
        self._due = now + seconds
        if self._due < self._looks_at:
            self._look_at(self._due)
        return now

    def rang(self) -> bool:
        """Whether the cancellation that was just caught is ours alone."""
        if not self._rings or self._task is None:
            return False
        self._rings = False
        return self._task.uncancel() <= self._cancelling

    def stop(self) -> None:
        """Nobody waits any more."""
        if self._rings and self._task is not None:  # whom it woke, something else was raised there
            self._rings = False
            self._task.uncancel()
        self._task = None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = moment
        self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        self._timer, self._looks_at = None, inf
        if self._task is None:
            return  # whoever reads takes its time; it looks again when there is something to wait for
        if self._due > self.clock():
            self._look_at(self._due)
        else:
            self._rings = True
            self._task.cancel()
