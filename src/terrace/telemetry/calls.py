"""A model call, before and after: what is asked for, what it came to, and who lets it pass and keeps the books.

Money is whole picodollars (1e-12 USD): prices are told in dollars a million tokens, to six decimals, so that every cost
is an exact integer and sums are exact too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec import Struct  # made once a call: a tenth of what a frozen dataclass costs

from terrace.types import Scope

PICODOLLARS = 10**12  # in a dollar

Operation = Literal["chat", "embed"]
Outcome = Literal["ok", "cancelled", "error", "lost"]  # lost: our process died, the reservation counts


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0  # of the input tokens
    estimated: bool = False  # counted by us because the provider did not say


class Demand(Struct, frozen=True):
    """The largest a call can be. `output_tokens` is what the caller bounds it to, None when it names no bound."""

    provider: str  # its name in the settings
    kind: str  # openai | ollama | anthropic | llamacpp | quote | builtin ...: what runs here costs nothing
    model: str  # the provider's own name
    operation: Operation
    input_tokens: int  # an upper bound
    output_tokens: int | None = None
    requests: int = 0  # 1 where no other door has counted the request


class Call(Struct, frozen=True):
    """One finished call of a provider, as a meter sees it. Times are seconds, the wait for a place included."""

    provider: str
    model: str
    operation: Operation
    outcome: Outcome
    code: str  # the error's code when outcome is error, else empty
    duration: float
    first_token: float | None
    usage: Usage | None  # None: nothing was used. Where that is unknown, whoever measured says the most it can be
    tenant: str | None


class OpenCall(Protocol):
    """A call that was let pass. `end` it exactly once, however it ends."""

    @property
    def output_tokens(self) -> int | None:
        """The longest answer reserved for: tell the provider when the caller named no bound. None: no bound."""

    @property
    def answer_tokens(self) -> int:
        """The longest answer to reckon with, with a bound or none: it counts when nobody knows how long it was."""

    def end(self, call: Call) -> None:
        """Settle. Quick, and never raises."""


class Meter(Protocol):
    """Every model call passes here before it is made. Reserve before, settle after."""

    def begin(self, scope: Scope, demand: Demand) -> OpenCall:
        """Raises Limited (which limit, whose, when there is room) or Denied (a money limit, and no known price)."""

    async def wait(self, scope: Scope, demand: Demand, patience: float) -> OpenCall:
        """As `begin`, but waits in turn for room, up to `patience` seconds. What can never fit is refused at once."""


class Counting:
    """A meter that refuses nothing: tells `record` of each call. For a house without accounts, and for tests."""

    def __init__(self, record: Callable[[Call], None]) -> None:
        self._record = record

    def begin(self, scope: Scope, demand: Demand) -> "_Counted":
        return _Counted(self._record)

    async def wait(self, scope: Scope, demand: Demand, patience: float) -> "_Counted":
        return _Counted(self._record)


class _Counted:
    output_tokens: int | None = None
    answer_tokens = 0

    def __init__(self, record: Callable[[Call], None]) -> None:
        self.end = record
