"""One call of an upstream, as it is measured: how it went, and what it used or may have used."""

from terrace.models.leaving import on_its_way
from terrace.telemetry.calls import Call, Demand, Outcome, Usage
from terrace.web.openai.base import Passthrough
from terrace.web.openai.framing import Framer
from terrace.web.openai.request import Request

NOT_SENT = frozenset({"upstream_unreachable", "upstream_busy", "shutting_down"})


class Trip:
    __slots__ = (
        "_begun",
        "answered",
        "bound",
        "code",
        "demand",
        "first_token",
        "most",
        "outcome",
        "request",
        "sent",
        "target",
        "usage",
    )

    def __init__(self, request: Request, target: Passthrough, demand: Demand) -> None:
        self.request = request
        self.target = target
        self.demand = demand
        self.bound: int | None = None  # the longest answer that was reserved for
        self.most = 0  # the longest answer to reckon with
        self.sent = False  # the upstream may have begun to work
        self.outcome: Outcome = "error"
        self.code = "internal"
        self.first_token: float | None = None
        self.usage: Usage | None = None
        self.answered: int | None = None  # tokens of the answer by our count, where the upstream did not tell
        self._begun = request.elapsed()

    def elapsed(self) -> float:
        return self.request.elapsed() - self._begun

    def failed(self, code: str, *, refused: bool) -> None:
        self.outcome = "error"
        self.code = code
        if refused or code in NOT_SENT:
            self.sent = False

    def saw(self, framer: Framer, *, left: bool = False) -> None:
        """What a stream came to, or had come to when it broke off or its reader `left`."""
        usage = framer.usage
        if usage is not None and framer.finished:
            self.usage = usage  # told at the end
            return
        if self.first_token is None:
            return
        seen = framer.tokens
        if left and not framer.finished:
            seen = max(seen, min(seen + on_its_way(seen, self.elapsed() - self.first_token), self.most))
        self.answered = seen if usage is None else max(seen, usage.output_tokens)

    def call(self) -> Call:
        demand = self.demand
        return Call(
            demand.provider,
            demand.model,
            demand.operation,
            self.outcome,
            self.code,
            self.elapsed(),
            self.first_token,
            self._used() if self.usage is None else self.usage,
            self.request.owner.tenant,
        )

    def _used(self) -> Usage | None:
        """The most it may have been. None: nothing."""
        demand = self.demand
        if self.answered is not None:
            output = self.answered if demand.operation == "chat" else 0
        elif self.sent:
            output = self.most
        else:
            return None
        return Usage(demand.input_tokens, output, estimated=True)
