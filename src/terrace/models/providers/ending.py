"""How an answer goes on, and how every answer ends: one Usage, then one Finish, said by the upstream or not."""

from collections.abc import Iterable, Iterator

from terrace.errors import TerraceError
from terrace.models.base import (
    ChatRequest,
    Delta,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from terrace.models.tokens import estimate, estimate_messages


class Ending:
    """Sees the deltas of one answer go by, and counts what the upstream does not."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._output = 0
        self.calls = 0  # tool calls begun
        self.usage: Usage | None = None
        self.reason: FinishReason | None = None

    def saw(self, delta: Delta) -> None:
        if isinstance(delta, TextDelta | ReasoningDelta):
            self._output += estimate(delta.text)
        elif isinstance(delta, ToolCallDelta):
            self._output += estimate(str(delta.call.get("function", "")))

    def deltas(self) -> Iterator[Delta]:
        yield self.usage or Usage(estimate_messages(self._request.messages), self._output, estimated=True)
        yield Finish(self.reason or "stop")


def joined(deltas: Iterable[Delta]) -> Iterator[Delta]:
    """Text that came together as one delta: each goes through many hands. A failure comes after what preceded it."""
    texts: list[str] = []
    try:
        for delta in deltas:
            if isinstance(delta, TextDelta):
                texts.append(delta.text)
                continue
            if texts:
                yield TextDelta("".join(texts), len(texts))
                texts.clear()
            yield delta
    except TerraceError:
        if texts:
            yield TextDelta("".join(texts), len(texts))
        raise
    if texts:
        yield TextDelta("".join(texts), len(texts))
