"""Models that used more than they were bounded to: more is reserved for their later calls."""

import logging
from math import ceil

from terrace.telemetry.calls import Demand, Usage

log = logging.getLogger(__name__)

MOST = 64.0  # times; what a provider tells beyond this is not believed
MODELS = 1000  # remembered

NONE = (1.0, 1.0)


class Factors:
    """By model: how much larger than our bounds its input and output came out, at the worst."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def applied(self, demand: Demand, output: int) -> tuple[int, int]:
        """Input and output tokens to reserve."""
        inwards, outwards = self._known.get((demand.provider, demand.model), NONE)
        return ceil(demand.input_tokens * inwards), ceil(output * outwards)

    def learn(self, demand: Demand, bound: int | None, usage: Usage) -> None:
        if usage.estimated:  # our own counting teaches nothing about the model
            return
        name = (demand.provider, demand.model)
        inwards, outwards = known = self._known.get(name, NONE)
        if demand.input_tokens > 0:
            inwards = max(inwards, min(usage.input_tokens / demand.input_tokens, MOST))
        if bound:
            outwards = max(outwards, min(usage.output_tokens / bound, MOST))
        if (inwards, outwards) == known:
            return
        if len(self._known) >= MODELS:
            self._known.clear()
        self._known[name] = inwards, outwards
        log.warning(
            "%s/%s used %d tokens of input and %d of output, bounded to %d and %s: more is reserved from now on",
            *name, usage.input_tokens, usage.output_tokens, demand.input_tokens, bound,
        )  # fmt: skip
