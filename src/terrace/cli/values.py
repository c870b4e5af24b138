"""What people write for limits and times, as the API wants it."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

from terrace.errors import Invalid

LIMITS = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens",
    "tokens_per_day": "tokens",
    "money_per_day": "dollars",
    "money_per_month": "dollars",
    "concurrent_requests": "model calls under way",
    "stored_bytes": "bytes of documents",
    "documents": "documents",
}
"""Name -> what it counts."""

_TIMES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000, "t": 1_000_000_000_000}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def complete_limit(incomplete: str) -> list[str]:
    """For the shell."""
    return [f"{name}=" for name in LIMITS if name.startswith(incomplete)]


def limits(given: Iterable[str]) -> dict[str, float | None]:
    """`name=value` each; `none` takes a limit away, `20k` is 20,000, `5GB` are bytes."""
    return dict(map(_limit, given))


def _limit(given: str) -> tuple[str, float | None]:
    name, equals, value = given.partition("=")
    name = name.strip().replace("-", "_")
    if name not in LIMITS:
        near = get_close_matches(name, LIMITS, 1)
        hint = f"is {near[0]} meant?" if near else f"there are {', '.join(LIMITS)}."
        raise Invalid(f"{name or given} is no limit; {hint}", code="unknown_limit")
    if not equals:
        raise Invalid(f"Write {name}=VALUE, or {name}=none to take it away.")
    return name, None if value.strip().lower() == "none" else _number(name, value)


def _number(name: str, value: str) -> float:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([kmgt]?)b?", value.strip().replace("_", "").lower())
    if not found:
        raise Invalid(f"{name}={value} is no number; write such as 60, 1.5, 20k, 5GB or none.")
    number = float(found[1]) * _TIMES[found[2]]
    return int(number) if number.is_integer() else number


def seconds(given: str) -> float:
    """`90s`, `15m`, `12h`, `30d`, `2w`."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", given.strip().lower())
    if not found:
        raise Invalid(f"{given} is no length of time; write such as 90s, 15m, 12h, 30d or 2w.")
    return float(found[1]) * _SECONDS[found[2]]


def moment(given: str) -> str:
    """A length of time from now, or a date, as ISO 8601."""
    try:
        told = datetime.fromisoformat(given)
    except ValueError:
        try:
            return (datetime.now(UTC) + timedelta(seconds=seconds(given))).isoformat(timespec="seconds")
        except OverflowError as error:
            raise Invalid(f"{given} is too long.") from error
    return (told if told.tzinfo else told.astimezone()).isoformat(timespec="seconds")


def day(given: str) -> str:
    """A date, or how long ago: `7d`."""
    try:
        return datetime.fromisoformat(given).date().isoformat()
    except ValueError:
        try:
            return (datetime.now(UTC) - timedelta(seconds=seconds(given))).date().isoformat()
        except OverflowError as error:
            raise Invalid(f"{given} is too long ago.") from error
