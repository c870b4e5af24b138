"""A timing in words, so that a person sees what their cron expression means."""

from collections.abc import Mapping, Sequence
from typing import Any

from terrace.schedules.timing import Timing

MOST_TIMES = 6  # times of day that are named one by one
_UNITS = ((7 * 86_400, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_PLACES = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", "l": "last"}


def sentence(timing: Timing) -> str:
    """Such as `Every Monday to Friday at 02:30, Europe/Berlin.`"""
    if timing.every is not None:
        return f"Every {lasting(timing.every)}."
    from croniter import croniter

    parsed = croniter(timing.cron or "")
    minutes, hours, days, months, weekdays = parsed.expanded
    on, at = _days(days, weekdays, parsed.nth_weekday_of_month), _times(minutes, hours)
    if months != ["*"]:
        on += f" in {listed([_MONTHS[int(month) - 1] for month in months])}"
    if at.startswith("every"):
        told = at if on == "every day" else f"{at}, {on.replace('every day', 'each day')}"
    else:
        told = f"{on} {at}"
    return f"{told[0].upper()}{told[1:]}, {timing.timezone}."


def lasting(seconds: int) -> str:
    """`hour`, `90 minutes`: in the largest unit that goes into it."""
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return unit if seconds == size else f"{seconds // size:,} {unit}s"


def _times(minutes: Sequence[Any], hours: Sequence[Any]) -> str:
    of_hours = _step(hours, 24)
    if minutes == ["*"]:
        often = "every minute"
    elif step := _step(minutes, 60):
        often = f"every {step} minutes"
    elif hours == ["*"] or of_hours:
        often = "every hour" if hours == ["*"] else f"every {of_hours} hours"
        return often if list(minutes) == [0] else f"{often} at {listed(_runs(minutes, str), 'minute')}"
    elif len(minutes) * len(hours) <= MOST_TIMES:
        return f"at {listed([f'{hour:02}:{minute:02}' for hour in hours for minute in minutes])}"
    else:
        often = f"at {listed(_runs(minutes, str), 'minute')}"
    return often if hours == ["*"] else f"{often} of {listed(_runs(hours, str), 'hour')}"


def _step(numbers: Sequence[Any], size: int) -> int:
    """How many lie between two of them, where they divide all of `size` evenly; else 0."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else size
    return step if step < size and list(numbers) == list(range(0, size, step)) and size % step == 0 else 0


def _days(days: Sequence[Any], weekdays: Sequence[Any], nth: Mapping[Any, Any]) -> str:
    told = []
    if days != ["*"]:
        ends = ["the last day" if day == "l" else f"day {day}" for day in days]
        told.append(f"on {listed(ends)} of the month")
    if weekdays != ["*"] and weekdays != list(range(7)):
        told.append(_weekdays(weekdays, nth))
    return " and ".join(told) or "every day"


def _weekdays(weekdays: Sequence[Any], nth: Mapping[Any, Any]) -> str:
    if not nth:
        return f"every {listed(_runs(weekdays, lambda day: _DAYS[day]))}"
    named = [f"the {_PLACES[place]} {_DAYS[day]}" for day in sorted(nth) for place in sorted(nth[day], key=str)]
    return f"on {listed(named)} of the month"


def _runs(numbers: Sequence[int], name: Any) -> list[str]:
    """What follows one on another as `a to b`, from three on."""
    told: list[str] = []
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            run = numbers[start:place]
            told += [f"{name(run[0])} to {name(run[-1])}"] if len(run) > 2 else [name(each) for each in run]
            start = place
    return told


def listed(names: Sequence[str], of: str = "") -> str:
    """`a`, `a and b`, `a, b and c`."""
    many = len(names) > 1 or any(" to " in each for each in names)
    before = f"{of}s " if of and many else f"{of} " if of else ""
    return before + (names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}")
