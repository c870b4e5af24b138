"""What fills up and empties again: the last minute, a day or month, calls under way.

`limit` is how much of its rule's value this process may use by itself: all of it, or its share where processes share.
They are asked a few times in every model call, so they are plain fields and loops. Times are seconds since 1970.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from terrace.accounts.limits.base import LimitName, Subject

MINUTE = 60.0
SOON = 1.0  # seconds after which to ask again where nobody knows when there is room
GRAIN = 0.125  # what comes within this leaves together, with its latest: never too early, and 480 buckets at most

Bucket = list[float]
"""[when its latest came, how much came, when its first came]; the first is 0 once it has left the window."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit as it was set. `value` is in whole units, money in picodollars."""

    subject: Subject
    name: LimitName
    value: int
    set_by: str
    set_at: float


class Window:
    """At most `limit` in any 60 seconds."""

    __slots__ = ("_buckets", "due", "elsewhere", "limit", "rule", "used")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.limit = rule.value
        self.used = 0
        self.elsewhere = 0  # what other processes used when we asked last
        self.due = float("inf")  # when something leaves; never late, perhaps early
        self._buckets: deque[Bucket] = deque()

    def take(self, amount: int, now: float) -> Bucket:
        self.used += amount
        buckets = self._buckets
        if buckets:
            last = buckets[-1]
            if 0 <= now - last[2] < GRAIN:
                last[0] = now
                last[1] += amount
                return last
        else:
            self.due = now + MINUTE
        bucket: Bucket = [now, amount, now]
        buckets.append(bucket)
        return bucket

    def give_back(self, bucket: Bucket, amount: int) -> None:
        if bucket[0]:
            bucket[1] -= amount
            self.used -= amount

    def remember(self, past: Iterable[tuple[float, int]]) -> None:
        """What came before this was set, oldest first."""
        since, self._buckets = self._buckets, deque()
        for came, amount in past:
            self.take(amount, came)
        self._buckets.extend(since)
        self.due = self._buckets[0][0] + MINUTE if self._buckets else float("inf")

    def expire(self, now: float) -> None:
        """Let go what is a minute old."""
        buckets = self._buckets
        while buckets and buckets[0][0] + MINUTE <= now:
            gone = buckets.popleft()
            gone[0] = 0.0
            self.used -= int(gone[1])
        if buckets and buckets[0][0] > now + 1:  # the clock was set back: a minute from now is late enough
            for bucket in buckets:
                bucket[0] = min(bucket[0], now)
        self.due = buckets[0][0] + MINUTE if buckets else float("inf")

    def room_in(self, amount: int, now: float) -> float | None:
        """Seconds until `amount` fits if nothing else comes; None when it is more than the limit itself."""
        if amount > self.rule.value:
            return None
        self.expire(now)
        missing = self.used + amount - self.limit
        for bucket in self._buckets:
            if missing <= 0:
                break
            missing -= int(bucket[1])
            if missing <= 0:
                return max(0.0, bucket[0] + MINUTE - now)
        return SOON if missing > 0 else 0.0  # others have what is missing

    def state(self, now: float) -> tuple[int, float | None]:
        """What is used, and the seconds until all of it is free again."""
        self.expire(now)
        return self.used, (self._buckets[-1][0] + MINUTE - now if self._buckets else None)


class Total:
    """At most `limit` in a day or a month of UTC. `used` holds what is reserved (`held`) too."""

    __slots__ = ("begins", "booked", "elsewhere", "ends", "held", "limit", "rule", "shared", "used")

    def __init__(self, rule: Rule, now: float) -> None:
        self.rule = rule
        self.limit = rule.value
        self.used = 0
        self.held = 0
        self.elsewhere = 0  # what other processes used when we asked last, and what is booked
        self.booked = 0  # of that, what surely stays used
        self.shared = False
        self.begins, self.ends = period(rule.name, now)

    def roll(self, now: float) -> None:
        """A new day or month. What began in the last one is settled there."""
        self.begins, self.ends = period(self.rule.name, now)
        self.used = self.held = 0
        if self.shared:  # no share of the new one yet
            self.limit = self.elsewhere = self.booked = 0

    def room_in(self, amount: int, now: float, soon: float) -> tuple[float | None, bool]:
        """As `Window.room_in`, and whether only time helps; `soon` when reservations alone are in the way: they may
        come to less."""
        if amount > self.rule.value:
            return None, True
        if self.booked + self.used - self.held + amount > self.rule.value:
            return self.ends - now, True
        return (soon if self.used + amount > self.limit else 0.0), False

    def state(self, now: float) -> tuple[int, float | None]:
        if self.ends <= now:
            self.roll(now)
        return self.used, self.ends - now


class Gauge:
    """At most `limit` at a time."""

    __slots__ = ("elsewhere", "limit", "rule", "used")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.limit = rule.value
        self.used = 0
        self.elsewhere = 0  # what other processes used when we asked last

    def state(self, now: float) -> tuple[int, float | None]:
        return self.used, None


Meter = Window | Total | Gauge


def meter(rule: Rule, now: float) -> Meter | None:
    """None for what is counted in the database."""
    if rule.name in ("requests_per_minute", "tokens_per_minute"):
        return Window(rule)
    if rule.name == "concurrent_requests":
        return Gauge(rule)
    return Total(rule, now) if rule.name in ("tokens_per_day", "money_per_day", "money_per_month") else None


def period(name: LimitName, now: float) -> tuple[float, float]:
    """When the day or month of `now` begins and ends."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if name != "money_per_month":
        return day.timestamp(), (day + timedelta(days=1)).timestamp()
    first = day.replace(day=1)
    return first.timestamp(), (first + timedelta(days=32)).replace(day=1).timestamp()
