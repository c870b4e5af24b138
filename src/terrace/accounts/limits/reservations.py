"""What is kept free for a call until it is known what it came to."""

from typing import TYPE_CHECKING

from terrace.accounts.limits.meters import Bucket, Gauge, Meter, Total, Window
from terrace.accounts.limits.room import Room
from terrace.telemetry.calls import Call, Demand
from terrace.telemetry.prices import Price
from terrace.types import Scope

if TYPE_CHECKING:
    from terrace.accounts.limits.holds import Holds
    from terrace.accounts.limits.memory import MemoryLimits


class Reservation:
    """So many tokens and picodollars in a caller's room, since `started`."""

    __slots__ = ("buckets", "calls", "cost", "room", "scope", "started", "tokens")

    def __init__(self, scope: Scope, room: Room, now: float, tokens: int, cost: int, calls: int) -> None:
        self.scope = scope
        self.room = room
        self.started = now
        self.tokens = tokens
        self.cost = cost
        self.calls = calls
        self.buckets: list[Bucket] | None = None

    def settle(self, now: float, tokens: int, cost: int) -> None:
        """It came to this. What it exceeds the reservation by counts too; below zero nothing goes."""
        room = self.room
        unused = self.tokens - tokens
        if self.buckets is not None:
            for window, bucket in zip(room.tokens, self.buckets, strict=True):
                if unused >= 0:
                    window.give_back(bucket, unused)
                else:
                    window.take(-unused, now)
        started = self.started
        for total in room.totals:
            if started >= total.begins:
                total.used -= unused
                total.held -= self.tokens
        for total in room.money:
            if started >= total.begins:
                total.used += cost - self.cost
                total.held -= self.cost
        if self.calls:
            for gauge in room.gauges:
                gauge.used -= 1

    def join(self, meter: Meter, now: float) -> None:
        """A limit was set while this was under way: it counts there from now on."""
        buckets = {id(window): bucket for window, bucket in zip(self.room.tokens, self.buckets or (), strict=False)}
        if isinstance(meter, Window) and meter.rule.name == "tokens_per_minute":
            buckets[id(meter)] = meter.take(self.tokens, now)
        elif isinstance(meter, Total) and self.started >= meter.begins:
            amount = self.tokens if meter.rule.name == "tokens_per_day" else self.cost
            meter.used += amount
            meter.held += amount
        elif isinstance(meter, Gauge):
            meter.used += self.calls
        self.room = Room((*self.room, meter))
        self.buckets = [buckets[id(window)] for window in self.room.tokens] or None


class Open(Reservation):
    """A call that was let pass: `telemetry.calls.OpenCall`."""

    __slots__ = ("_limits", "answer_tokens", "demand", "ended", "output_tokens", "price", "reserved_input", "slot")

    def __init__(
        self,
        limits: "MemoryLimits",
        scope: Scope,
        demand: Demand,
        room: Room,
        now: float,
        price: Price | None,
        tokens: int,
        cost: int,
        calls: int,
        reserved_input: int,
        output_tokens: int | None,
        answer_tokens: int,
        slot: int,
    ) -> None:
        self.scope = scope
        self.room = room
        self.started = now
        self.tokens = tokens
        self.cost = cost
        self.calls = calls
        self.buckets = None
        self._limits = limits
        self.demand = demand
        self.price = price
        self.reserved_input = reserved_input
        self.output_tokens = output_tokens
        self.answer_tokens = answer_tokens
        self.slot = slot
        self.ended = False

    def end(self, call: Call) -> None:
        if not self.ended:
            self.ended = True
            self._limits.ended(self, call)


class Kept(Reservation):
    """A hold: `accounts.limits.base.Hold`."""

    __slots__ = ("_holds", "demand", "job")

    def __init__(
        self, scope: Scope, room: Room, now: float, tokens: int, cost: int, demand: Demand, holds: "Holds"
    ) -> None:
        super().__init__(scope, room, now, tokens, cost, 0)
        self.demand = demand
        self.job: str | None = None
        self._holds = holds

    def bind(self, job_id: str) -> None:
        self._holds.bind(self, job_id)

    def release(self) -> None:
        self._holds.release(self)

    def retake(self, now: float) -> None:
        """After `settle` with nothing: have it again."""
        self.started = now
        self.buckets = self.room.take(now, 0, self.tokens, self.cost, 0)
