"""What a token costs. The table that ships is dated; an operator's own prices win; what nobody knows is None, not zero.

Prices are told in dollars a million tokens with at most six decimals, which is a whole number of picodollars a token.
"""

from dataclasses import dataclass

from terrace.telemetry.calls import Usage


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars a token."""

    input: int
    cached: int  # of an input token that the provider had in its cache
    output: int
    dated: str  # when it was looked up or set: 2026-11-21


FREE = Price(0, 0, 0, "")


def cost(price: Price, usage: Usage) -> int:
    """Picodollars. Cached tokens are some of the input tokens."""
    cached = min(usage.cached_tokens, usage.input_tokens)
    return (usage.input_tokens - cached) * price.input + cached * price.cached + usage.output_tokens * price.output
