"""Glob patterns of paths: `*` and `?` within a name, `**` over any number of folders; without a slash, any name."""

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache

from terrace.errors import Invalid

MAX_PATTERNS = 50
MAX_PATTERN_CHARS = 200


def checked(patterns: Sequence[str]) -> tuple[str, ...]:
    """Raises Invalid for too many, too long, or one that can match nothing."""
    tidy = tuple(dict.fromkeys(each.strip() for each in patterns if each.strip()))
    if len(tidy) > MAX_PATTERNS or any(len(each) > MAX_PATTERN_CHARS for each in tidy):
        raise Invalid(
            f"There may be {MAX_PATTERNS} patterns of {MAX_PATTERN_CHARS} characters each.", code="bad_pattern"
        )
    for each in tidy:
        if "\0" in each or ".." in each.split("/"):
            raise Invalid(f"The pattern {each!r} can match nothing: write it like **/*.pdf.", code="bad_pattern")
    return tidy


def wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether one of `include` (everything when there is none) and none of `exclude` matches this path."""
    return (not include or any(matches(path, each) for each in include)) and not any(
        matches(path, each) for each in exclude
    )


def matches(path: str, pattern: str) -> bool:
    """
    >>> matches("reports/2024/may.pdf", "reports/**/*.pdf"), matches("reports/may.txt", "*.txt")
    (True, True)
    """
    parts = pattern.strip("/").split("/")
    if len(parts) == 1 and parts[0] != "**":
        parts = ["**", *parts]
    return _match(path.strip("/").split("/"), parts)


def _match(names: list[str], parts: list[str]) -> bool:
    """Places of `names` that the parts so far can end at, so that many `**` take no longer than few."""
    places = {0}
    for index, part in enumerate(parts):
        if part == "**":
            first = min(places)
            last = len(names) if index + 1 < len(parts) else len(names) + 1
            places = set(range(first, last)) or {first}
            if index + 1 == len(parts):
                return True
            continue
        name = _regex(part)
        places = {at + 1 for at in places if at < len(names) and name.match(names[at])}
        if not places:
            return False
    return len(names) in places


@lru_cache(maxsize=1000)
def _regex(part: str) -> re.Pattern[str]:
    return re.compile(translate(part))
