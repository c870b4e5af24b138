"""What a call may come to at most, which is reserved for it, and what it did come to."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from terrace.accounts.limits.factors import Factors
from terrace.accounts.limits.refusals import NoRoom
from terrace.accounts.limits.reservations import Open
from terrace.accounts.limits.room import Asked, Need, Room
from terrace.telemetry.calls import Demand, Usage
from terrace.telemetry.journal import MAX_TOKENS
from terrace.telemetry.prices import Price, cost

LEAST_ANSWER = 16  # tokens; with less room than this a call is refused


class PriceList(Protocol):
    def of(self, kind: str, provider: str, model: str) -> Price | None:
        """None when nobody knows."""


class Estimates:
    """`factors` tells of models that use more than their bounds, and learns it here."""

    def __init__(self, prices: PriceList, answer_tokens: int) -> None:
        """`answer_tokens` are kept free for an answer that nobody bounds."""
        self._prices = prices
        self._answer_tokens = answer_tokens
        self.factors = Factors()

    def largest(self, demand: Demand) -> int | None:
        """In picodollars; None when nobody knows the price."""
        price = self._prices.of(demand.kind, demand.provider, demand.model)
        if price is None:
            return None
        answer = self._answer_tokens if demand.output_tokens is None else demand.output_tokens
        return dearest(price, *self.factors.applied(demand, answer if demand.operation == "chat" else 0))

    def fitting(
        self, room: Room, demand: Demand, price: Price | None, moment: float, requests: int, calls: int, *, whole: bool
    ) -> tuple[Need, int | None]:
        """What a call needs with the longest answer that there is room for, where it bounds the answer no further
        itself; `whole`: with no shorter one. Raises NoRoom."""

        def need(bound: int | None) -> Need:
            inwards, outwards = self.factors.applied(demand, bound or 0)
            money = 0 if price is None else dearest(price, inwards, outwards)
            return Need(requests, inwards + outwards, money, calls)

        def answer_fits(bound: int) -> bool:
            wanted = need(bound)
            return room.fits(moment, 0, wanted.tokens, wanted.cost, 0)

        bound, least = demand.output_tokens, None
        if bound is None and demand.operation == "chat" and room.bounded:
            bound = self._answer_tokens
            least = need(LEAST_ANSWER)
            if not whole:
                bound = _most(LEAST_ANSWER, bound, answer_fits)
        wanted = need(bound)
        if refusals := room.refusals(moment, wanted):
            raise NoRoom(refusals, demand, asked=Asked(room, wanted, least or wanted))
        return wanted, bound

    def came_to(self, call: Open, usage: Usage | None) -> tuple[int, int]:
        """Tokens and picodollars."""
        if usage is None:
            return 0, 0
        if not (0 <= usage.input_tokens <= MAX_TOKENS and 0 <= usage.output_tokens <= MAX_TOKENS):
            usage = _believable(usage)
        tokens = usage.input_tokens + usage.output_tokens
        if usage.input_tokens > call.reserved_input or tokens > call.tokens:
            self.factors.learn(call.demand, call.output_tokens, usage)
        return tokens, 0 if call.price is None else cost(call.price, usage)


def dearest(price: Price, inwards: int, outwards: int) -> int:
    """Picodollars, whatever the provider has in its cache."""
    dearer = price.input if price.input >= price.cached else price.cached
    return dearer * inwards + price.output * outwards


def _believable(usage: Usage) -> Usage:
    """As it is booked: a provider that tells less than nothing gives no room back."""
    inwards, outwards = (min(max(0, said), MAX_TOKENS) for said in (usage.input_tokens, usage.output_tokens))
    return replace(usage, input_tokens=inwards, output_tokens=outwards, cached_tokens=max(0, usage.cached_tokens))


def _most(least: int, most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits; `least` when no larger one does."""
    while most > least:
        middle = (least + most + 1) // 2
        if fits(middle):
            least = middle
        else:
            most = middle - 1
    return least
