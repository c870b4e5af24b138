"""When something is due: every so many seconds, or by a cron expression in a time zone.

Cron is read on the wall clock. An expression for every hour goes with real time: through the hour that exists twice it
fires in both. One that names hours fires once for each time it names: in the first of two such hours, and at the first
moment after a gap where the clock leaps over it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from terrace.errors import Invalid

LONGEST = 100  # characters of an expression
MIN_EVERY, MAX_EVERY = 60, 366 * 86_400  # seconds
FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
ANY_TIME = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)  # from which on an expression must fire
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_LETTERS = ((), (), ("l",), _MONTHS, ("l", *_DAYS))  # what may stand in each field
_TRANSITIONS = 100  # more than lie between any time and the next that an expression names
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Timing:
    """Made by `timing`. Exactly one of `cron` and `every` is there."""

    cron: str | None
    every: int | None
    timezone: str

    def next(self, after: float, anchor: float) -> float:
        """The first due time later than `after`; `every` counts from `anchor`. Raises Invalid when there is none."""
        if self.every is not None:
            return anchor + self.every * (max(0, (after - anchor) // self.every) + 1)
        zone, since = ZoneInfo(self.timezone), datetime.fromtimestamp(after, UTC)
        cron = self.cron or ""
        due = _with_real_time(cron, since, zone) if cron.split()[1] == "*" else _named(cron, since, zone)
        return due.timestamp()


def timing(cron: str | None, every: int | None, timezone: str) -> Timing:
    """Raises Invalid, in a sentence, for what cannot be read or never fires."""
    if (cron is None) == (every is None):
        raise Invalid("Say when it runs: either `cron`, or `every` so many seconds.", code="bad_schedule")
    check_zone(timezone)
    if every is not None:
        if not MIN_EVERY <= every <= MAX_EVERY:
            raise Invalid(f"`every` lies between {MIN_EVERY} and {MAX_EVERY:,} seconds (a year).", code="bad_every")
        return Timing(None, every, timezone)
    return Timing(fields_of(cron or ""), None, timezone)


def fields_of(cron: str) -> str:
    """Five fields with a space between, an alias replaced. Raises Invalid."""
    if len(cron) > LONGEST:
        raise Invalid(f"A cron expression has at most {LONGEST} characters.", code="bad_cron")
    given = cron.strip().lower()
    fields = ALIASES.get(given, given).split()
    if len(fields) in (6, 7):
        raise Invalid(
            f"{cron!r} has {len(fields)} fields. Leave seconds and years out: minute, hour, day of the month, month, "
            "day of the week.",
            code="bad_cron",
        )
    if len(fields) != len(FIELDS):
        raise Invalid(
            f"{cron!r} is no cron expression: write five fields (minute, hour, day of the month, month, day of the "
            "week), such as 30 2 * * 1-5, or @hourly, @daily, @weekly, @monthly, @yearly.",
            code="bad_cron",
        )
    for place, field in enumerate(fields):
        _check_field(place, field)
    if _every_hour(fields[1]):
        fields[1] = "*"
    expression = " ".join(fields)
    try:
        _after(expression, ANY_TIME)
    except Invalid as error:
        raise Invalid(f"{cron.strip()!r} never fires: there is no such day in the calendar.", code="never") from error
    return expression


def _check_field(place: int, field: str) -> None:
    from croniter import croniter

    letters = re.findall(r"[a-z]+", field)
    alone = ["*"] * len(FIELDS)
    alone[place] = field
    if (
        not re.fullmatch(r"[0-9a-z*/,#?-]+", field)
        or not set(letters) <= set(_LETTERS[place])
        or not croniter.is_valid(" ".join(alone))
    ):
        raise Invalid(f"{field!r} cannot stand in the field for the {FIELDS[place]}.", code="bad_cron")


def _every_hour(field: str) -> bool:
    from croniter import croniter

    hours = croniter(f"0 {field} * * *").expanded[1]
    return hours == ["*"] or len(hours) == 24


def check_zone(name: str) -> None:
    """Raises Invalid, with names like it."""
    try:
        if not re.fullmatch(r"[A-Za-z0-9_+/-]{1,64}", name):
            raise ValueError(name)
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        near = get_close_matches(name[:64], _zones(), 3)
        hint = f" Is {' or '.join(near)} meant?" if near else " Write it as Europe/Berlin, or UTC."
        raise Invalid(f"There is no time zone {name[:64]!r}.{hint}", code="bad_timezone") from error


@lru_cache(1)
def _zones() -> tuple[str, ...]:
    return tuple(sorted(available_timezones()))


def _after(cron: str, wall: datetime) -> datetime:
    """The next time on the wall clock. Raises Invalid when there is none."""
    from croniter import CroniterError, croniter

    try:
        found: datetime = croniter(cron, wall).get_next(datetime)
    except CroniterError as error:
        raise Invalid(f"{cron!r} never fires again.", code="never") from error
    return found


def _named(cron: str, since: datetime, zone: ZoneInfo) -> datetime:
    wall = since.astimezone(zone).replace(tzinfo=None)
    while True:
        wall = _after(cron, wall)
        if (due := _first(wall, zone)) > since:
            return due


def _first(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first moment this is what the clock shows, or the end of the gap it lies in."""
    due = wall.replace(tzinfo=zone).astimezone(UTC)
    if due.astimezone(zone).replace(tzinfo=None) == wall:
        return due
    return _change(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), due, zone)


def _with_real_time(cron: str, since: datetime, zone: ZoneInfo) -> datetime:
    """The next moment whose wall clock fits, as if the clock never changed; where it does, again from there."""
    just_before = timedelta()
    for _ in range(_TRANSITIONS):
        offset = since.astimezone(zone).utcoffset() or timedelta()
        wall = (since + offset).replace(tzinfo=None)
        due = _after(cron, wall - just_before).replace(tzinfo=UTC) - offset
        if due.astimezone(zone).utcoffset() == offset:
            return due
        since, just_before = _change(since, due, zone), _SECOND
    raise Invalid(f"{cron!r} never fires again.", code="never")


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """When the clock changes between two moments of different offsets, to the second."""
    offset = before.astimezone(zone).utcoffset()
    low, high = int(before.timestamp()), int(after.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        same = datetime.fromtimestamp(middle, UTC).astimezone(zone).utcoffset() == offset
        low, high = (middle, high) if same else (low, middle)
    return datetime.fromtimestamp(high, UTC)
