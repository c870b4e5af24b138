"""An answer that never ends is cut."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from terrace.models.base import ChatRequest, Delta, Finish, Provider, ReasoningDelta, TextDelta, ToolCallDelta
from terrace.models.providers.ending import Ending
from terrace.models.wrappers.base import Wrapper


class Bounded(Wrapper):
    """Cuts an answer, reasoning and tool calls included, past `limit` bytes: it then ends with `length`."""

    def __init__(self, inner: Provider, limit: int) -> None:
        super().__init__(inner)
        self._limit = limit

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        ending, left = Ending(request), self._limit
        async with aclosing(self.inner.stream(request)) as deltas:
            async for delta in deltas:
                left -= _size(delta)
                if left < 0:
                    break
                ending.saw(delta)
                yield delta
                if isinstance(delta, Finish):
                    return
        ending.reason = "length"
        for delta in ending.deltas():
            yield delta


def _size(delta: Delta) -> int:
    if isinstance(delta, TextDelta | ReasoningDelta):
        return len(delta.text.encode("utf-8", "replace"))
    return len(str(delta.call)) if isinstance(delta, ToolCallDelta) else 0
