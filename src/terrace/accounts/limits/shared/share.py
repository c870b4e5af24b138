"""A process's share of one limit: how much it draws at a time, what it keeps to spend, when it hands back.

It draws for some seconds ahead, by what went in the last ones, and draws again before all of it is spent: so few calls
wait for it, and however many there are, the others are asked once or twice a second.
"""

from terrace.accounts.limits.meters import Meter, Total, Window
from terrace.accounts.limits.shared import keys
from terrace.accounts.limits.shared.base import Found, Key, Line

AHEAD = 32  # calls like the largest that asked, for which there is slack at least
LASTS = 4.0  # seconds for which slack shall be enough where more goes
FRESH = 1.0  # seconds that others know what lies idle here, and we who wants it, before it is said again
STILL = 1.0  # seconds after which what nobody used is handed back


class Share:
    """Of one meter, which has the share itself as its `limit`. Times are the event loop's."""

    __slots__ = ("_call", "_drawn", "_known", "_said", "_seen", "_used", "_value", "anew", "awaited", "booked", "busy",
                 "keep", "least", "meter", "soon", "told", "wanted", "wish")  # fmt: skip

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.told: tuple[Key, int] | None = None  # what others know that we hold
        self.anew = False  # it is to be said, whatever they know: it changed, or what they use is to be learned
        self.least = self.wish = 0  # what is asked for next
        self.awaited = 0  # calls that asked and have not looked again: what has come for them stays
        self.keep = 0  # what may lie idle
        self.wanted = False  # by others
        # What we did not get may be had soon: others have it idle, or something was booked meanwhile, which counts
        # twice until whoever holds it has heard of that.
        self.soon = False
        self.busy = False  # a call ended since we looked last
        self.booked = -1
        self._call = 0  # the largest that asked
        self._known = 0  # what was booked of it, as far as we knew when we asked
        self._drawn = 0.0  # when
        self._said = 0.0  # when
        self._used = -1  # at the last look
        self._seen = 0.0  # when it was in use last
        self._value = meter.rule.value  # of the limit, when we looked last

    @property
    def at_rest(self) -> bool:
        """Nothing is held, and the others know."""
        return not (self.meter.limit or self.anew) and self.told is not None and not self.told[1]

    @property
    def crowded(self) -> bool:
        """Most of the limit is used: what lies idle here may be missing elsewhere."""
        meter = self.meter
        return (meter.elsewhere + meter.limit) * 2 > meter.rule.value

    def ruled(self) -> None:
        """The limit may be another now: of a lower one nothing is kept that was drawn ahead under the old."""
        if self.meter.rule.value < self._value:
            self._drop()
        self._value = self.meter.rule.value

    def _drop(self) -> None:
        self.meter.limit = self.meter.used
        self.anew, self.keep = True, 0

    def ask(self, least: int, wish: int) -> None:
        self._call = max(self._call, wish)
        self._add(least, wish)

    def ask_again(self, line: Line) -> None:
        """What a line asked for that nobody answers."""
        if line.wish:
            self._add(line.least + line.idle, line.wish + line.idle)

    def _add(self, least: int, wish: int) -> None:
        self.least = min(self.least, least) if self.least else least
        self.wish += wish

    def line(self, now: float, ticks: float) -> Line | None:
        """What is to be said of it, if anything; what it hands back, it has no more. `now` is a meter's time."""
        meter = self.meter
        if isinstance(meter, Window):
            meter.expire(now)
        elif isinstance(meter, Total) and meter.ends <= now:
            meter.roll(now)
        meter.limit = max(meter.limit, meter.used)  # a call came to more than was reserved for it
        if self.busy or meter.used != self._used:
            self.busy, self._used, self._seen = False, meter.used, ticks
        idle = meter.limit - meter.used
        least, wish, slack = max(0, self.least - idle), max(0, self.wish - idle), self._slack(idle, ticks)
        given = 0 if wish or slack else self._spare(idle - self.wish, ticks)
        self.least = self.wish = 0
        meter.limit -= given
        idle -= given
        key = keys.key_of(meter)
        if not (wish or slack or given or self._is_news(key, idle, ticks)):
            return None
        self._said, self.anew = ticks, False
        self._known = meter.booked if isinstance(meter, Total) else 0
        return Line(key, meter.rule.value, meter.limit, min(idle, meter.limit), least, wish, slack, self.booked)

    def _slack(self, idle: int, ticks: float) -> int:
        """What it would like beside what is needed now."""
        missing = self.wish > idle
        if self.wanted or not (missing or 2 * idle < self.keep):
            return 0
        gone = self.keep - idle + self.wish
        ahead = max(AHEAD * self._call, int(LASTS * gone / max(ticks - self._drawn, 1.0)))
        self._drawn = ticks
        return ahead if missing else max(0, ahead - idle)

    def _spare(self, idle: int, ticks: float) -> int:
        """What of it is to be handed back."""
        if self.awaited:
            return 0
        if self.wanted or not self.keep:
            return idle
        if ticks > self._seen + STILL:
            self.keep = self._call = 0
            return idle
        return idle - self.keep if idle > 2 * self.keep else 0

    def _is_news(self, key: Key, idle: int, ticks: float) -> bool:
        """That some of it was booked can wait: the others count it either way."""
        if self.anew or self.told is None or self.told[0] != key:
            return True
        if self.told[1] < self.meter.limit or (idle and self.crowded):
            return True
        again = ticks // FRESH > self._said // FRESH  # all shares in the same look
        return again and bool(idle or self.told[1] != self.meter.limit)

    def heard(self, line: Line, found: Found) -> bool:
        """Whether we got all that was asked for."""
        meter = self.meter
        self.wanted = found.wanted
        if found.wanted:
            self.keep = 0
        elif line.wish:
            self.keep = max(0, found.granted - line.wish)
        elif line.slack:
            self.keep = line.idle + found.granted
        self.soon = found.idle > 0 or found.booked != self._known
        whole = found.granted >= line.wish
        if keys.key_of(meter) != line.key:  # another day has begun since
            return whole
        meter.limit += found.granted
        meter.elsewhere = found.booked + found.others - found.idle
        if isinstance(meter, Total):
            meter.booked = found.booked
        self.told = line.key, line.held + found.granted
        if meter.rule.value < line.value:  # it was granted under a limit that was higher
            self._drop()
        return whole

    def holding(self) -> Line:
        """What is left of it by a process that goes."""
        return Line(keys.key_of(self.meter), self.meter.rule.value, self.meter.used)
