"""All the limits that one caller's calls count against, checked together and taken together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from terrace.accounts.limits.meters import SOON, Bucket, Gauge, Meter, Total, Window
from terrace.telemetry.calls import Demand

__all__ = ["SOON", "Asked", "Need", "Refusal", "Room"]


@dataclass(frozen=True, slots=True)
class Need:
    """What a call may come to at the most; `cost` in picodollars, `calls` 1 where it counts as under way."""

    requests: int = 0
    tokens: int = 0
    cost: int = 0
    calls: int = 0

    def of(self, meter: Meter) -> int:
        """Of one limit."""
        if isinstance(meter, Gauge):
            return self.calls
        if meter.rule.name == "requests_per_minute":
            return self.requests
        return self.tokens if meter.rule.name.startswith("tokens") else self.cost


@dataclass(frozen=True, slots=True)
class Refusal:
    """A limit that does not let something through: how much that was, and the seconds until it may. None: never.
    `firm` when only time helps, and no call that comes to less than was reserved for it."""

    meter: Meter
    amount: int
    wait: float | None
    firm: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What there was no room for, in all: others may have it. `least` would do too, with a shorter answer."""

    room: "Room"
    need: Need
    least: Need


class Room:
    """The meters of a (tenant, user, key), by what they count."""

    __slots__ = ("bounded", "gauges", "limited", "money", "requests", "tokens", "totals")

    def __init__(self, meters: Iterable[Meter] = ()) -> None:
        found = list(meters)
        windows = [each for each in found if isinstance(each, Window)]
        totals = [each for each in found if isinstance(each, Total)]
        self.requests = tuple(each for each in windows if each.rule.name == "requests_per_minute")
        self.tokens = tuple(each for each in windows if each.rule.name == "tokens_per_minute")
        self.totals = tuple(each for each in totals if each.rule.name == "tokens_per_day")
        self.money = tuple(each for each in totals if each.rule.name != "tokens_per_day")
        self.gauges = tuple(each for each in found if isinstance(each, Gauge))
        self.limited = bool(found)
        self.bounded = bool(self.tokens or self.totals or self.money)  # answers need a bound

    def __iter__(self) -> Iterator[Meter]:
        yield from self.requests
        yield from self.tokens
        yield from self.totals
        yield from self.money
        yield from self.gauges

    def counting(self, demand: Demand) -> list[Meter]:
        """The meters that such a call counts against."""
        calls = demand.requests or demand.operation == "chat"
        return [*(self.requests if demand.requests else ()), *self.tokens, *self.totals, *self.money,
                *(self.gauges if calls else ())]  # fmt: skip

    def fits(self, now: float, requests: int, tokens: int, cost: int, calls: int) -> bool:
        if requests:
            for window in self.requests:
                if window.due <= now:
                    window.expire(now)
                if window.used + requests > window.limit:
                    return False
        for window in self.tokens:
            if window.due <= now:
                window.expire(now)
            if window.used + tokens > window.limit:
                return False
        for total in self.totals:
            if total.ends <= now:
                total.roll(now)
            if total.used + tokens > total.limit:
                return False
        for total in self.money:
            if total.ends <= now:
                total.roll(now)
            if total.used + cost > total.limit:
                return False
        if calls:
            for gauge in self.gauges:
                if gauge.used >= gauge.limit:
                    return False
        return True

    def take(self, now: float, requests: int, tokens: int, cost: int, calls: int) -> "list[Bucket] | None":
        """All of it. The buckets are those of the windows of tokens, in their order."""
        if requests:
            for window in self.requests:
                window.take(requests, now)
        for total in self.totals:
            total.used += tokens
            total.held += tokens
        for total in self.money:
            total.used += cost
            total.held += cost
        if calls:
            for gauge in self.gauges:
                gauge.used += 1
        return [window.take(tokens, now) for window in self.tokens] if self.tokens else None

    def refusals(self, now: float, need: Need) -> list[Refusal]:
        """Every limit that is in the way."""
        self.refresh(now)
        requests, tokens = need.requests, need.tokens
        found = [Refusal(each, tokens, each.room_in(tokens, now)) for each in self.tokens]
        found += [Refusal(each, tokens, *each.room_in(tokens, now, SOON)) for each in self.totals]
        found += [Refusal(each, need.cost, *each.room_in(need.cost, now, SOON)) for each in self.money]
        if requests:
            found += [Refusal(each, requests, each.room_in(requests, now), firm=True) for each in self.requests]
        if need.calls:
            found += [Refusal(each, 1, SOON if each.used >= each.limit else 0.0) for each in self.gauges]
        return [each for each in found if each.wait != 0.0]

    def refresh(self, now: float) -> None:
        """Let go what time has freed."""
        for window in (*self.requests, *self.tokens):
            window.expire(now)
        for total in (*self.totals, *self.money):
            if total.ends <= now:
                total.roll(now)
