"""How every answer ends: one Usage, then one Finish, whether or not the upstream said them."""

from collections.abc import Iterator

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
