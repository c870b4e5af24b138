"""What a message's model calls may cost, and came to: every call made while a purse is open is paid from it.

A `Meter` around the meter of limits, so that each call, an attempt that is repeated and a fallback's too, is reserved
before it is made and counted as the ledger counts it.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from terrace.campaigns.runs.steps import Spent
from terrace.errors import Conflict, Denied
from terrace.telemetry.calls import Call, Demand, Meter, OpenCall
from terrace.telemetry.prices import Price, cost
from terrace.types import Scope

Reserve = Callable[[int], Awaitable[bool]]
"""Keeps so many more picodollars free; False when the budget does not have them."""
Largest = Callable[[Demand], int | None]
PriceOf = Callable[[str, str, str], Price | None]


_purse: ContextVar["Purse | None"] = ContextVar("purse", default=None)


class OverBudget(Conflict):
    """The next call could cost more than is left."""

    def __init__(self) -> None:
        super().__init__(
            "The next message could cost more than is left of the budget. Raise the budget and resume.",
            code="budget_exhausted",
        )


class Purse:
    """Of one attempt. Without `reserve` it only counts."""

    def __init__(self, reserve: Reserve | None = None) -> None:
        self._reserve = reserve
        self._open = 0  # the most that calls under way may cost
        self.reserved = 0  # kept free so far
        self._cost = self._unpriced = self._input = self._output = 0

    @property
    def spent(self) -> Spent:
        return Spent(self._cost, self._unpriced, self._input, self._output)

    async def hold(self, most: int | None) -> int:
        """Before a call that may cost so much. Raises OverBudget; Denied when nobody knows what it may cost."""
        if self._reserve is None:
            return 0
        if most is None:
            raise Denied(
                "Nobody knows the price of this model, so no budget can hold. Set its price, or take the budget away.",
                code="price_unknown",
            )
        self._open += most
        needed = self._cost + self._open - self.reserved
        try:
            if needed > 0:
                if not await self._reserve(needed):
                    raise OverBudget
                self.reserved += needed
        except BaseException:
            self._open -= most
            raise
        return most

    def end(self, held: int, call: Call | None, price: Price | None) -> None:
        """The call is over, or was not made."""
        self._open -= held
        if call is None or call.usage is None:
            return
        self._input += call.usage.input_tokens
        self._output += call.usage.output_tokens
        if price is None:
            self._unpriced += 1
        else:
            self._cost += cost(price, call.usage)


class Purses:
    """The meter. Calls outside `opened` go by."""

    def __init__(self, inner: Meter, largest: Largest, price_of: PriceOf) -> None:
        self._inner = inner
        self._largest = largest
        self._price_of = price_of

    @staticmethod
    @contextmanager
    def opened(purse: Purse) -> Iterator[Purse]:
        """The calls that this task makes meanwhile are paid from it."""
        token = _purse.set(purse)
        try:
            yield purse
        finally:
            _purse.reset(token)

    def begin(self, scope: Scope, demand: Demand) -> OpenCall:
        return self._inner.begin(scope, demand)  # a job's calls wait, if need be

    async def wait(self, scope: Scope, demand: Demand, patience: float) -> OpenCall:
        purse = _purse.get()
        if purse is None:
            return await self._inner.wait(scope, demand, patience)
        held = await purse.hold(self._largest(demand))
        try:
            opened = await self._inner.wait(scope, demand, patience)
        except BaseException:
            purse.end(held, None, None)
            raise
        return _Paid(opened, purse, held, self._price_of(demand.kind, demand.provider, demand.model))


class _Paid:
    """An open call whose end is counted twice: by the ledger, and in the purse."""

    def __init__(self, inner: OpenCall, purse: Purse, held: int, price: Price | None) -> None:
        self._inner = inner
        self._purse = purse
        self._held = held
        self._price = price
        self.output_tokens = inner.output_tokens
        self.answer_tokens = inner.answer_tokens

    def end(self, call: Call) -> None:
        self._inner.end(call)
        self._purse.end(self._held, call, self._price)
