"""One call of an upstream, as it is measured: how it went, and what it used or may have used."""

from terrace.telemetry.calls import Call, Demand, Outcome, Usage
from terrace.web.openai.base import Passthrough
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
            output = self.bound or demand.output_tokens or 0
        else:
            return None
        return Usage(demand.input_tokens, output, estimated=True)
