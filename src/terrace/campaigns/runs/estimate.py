"""What a whole campaign may cost, told from a few messages of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from terrace.telemetry.calls import PICODOLLARS, Usage
from terrace.telemetry.prices import Price, cost

SHORT_ANSWER = 0.1  # of the longest: what a message has at the least, where none was written


@dataclass(frozen=True, slots=True)
class Sample:
    """One message of a preview. `spent` in picodollars, None where no model was asked."""

    input_tokens: int
    longest_answer: int
    spent: int | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Dollars. `known` is false where nobody knows the model's price, or (`basis` is nothing) no message could be
    prepared: then nothing can be said. `ceiling` is what it cannot exceed if every answer is as long as it may be."""

    messages: int
    known: bool
    low: float | None
    high: float | None
    ceiling: float | None
    basis: str  # messages | prompts | nothing: what it was told from
    price_dated: str | None


def estimate(samples: Sequence[Sample], messages: int, price: Price | None, *, free: bool) -> Estimate:
    """`free`: no model is asked at all."""
    if free:
        return Estimate(messages, True, 0.0, 0.0, 0.0, "prompts", None)
    if price is None or not samples:
        return Estimate(messages, False, None, None, None, "nothing" if price else "prompts", None)
    longest = [cost(price, Usage(each.input_tokens, each.longest_answer)) for each in samples]
    spent = [each.spent for each in samples if each.spent is not None]
    if spent:
        low, high, basis = min(spent), max(spent), "messages"
    else:
        short = [cost(price, Usage(each.input_tokens, round(each.longest_answer * SHORT_ANSWER))) for each in samples]
        low, high, basis = min(short), max(longest), "prompts"
    ceiling = max(max(longest), high)
    return Estimate(
        messages, True, _dollars(low, messages), _dollars(high, messages), _dollars(ceiling, messages), basis,
        price.dated or None,
    )  # fmt: skip


def _dollars(each: int, messages: int) -> float:
    return each * messages / PICODOLLARS
