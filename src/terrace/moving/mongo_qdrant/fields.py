"""Values of foreign records: found by a dotted path, turned into text, numbers and names of ours."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

MAX_KEY_CHARS = 500
MAX_PAGE = 10_000_000

_MISSING = object()
_BROKEN = re.compile("[\x00\ud800-\udfff]")  # what PostgreSQL cannot keep, and what is no character


def find(record: Mapping[str, Any], path: str) -> Any:
    """The value at `a.b.0.c`; None when there is none. A key that holds the dots itself wins.

    >>> find({"metadata": {"source": "x.pdf"}}, "metadata.source")
    'x.pdf'
    """
    if not path:
        return None
    if path in record:
        return record[path]
    value: Any = record
    for part in path.split("."):
        value = _step(value, part)
        if value is _MISSING:
            return None
    return value


def _step(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part, _MISSING)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and part.isdecimal():
        return value[int(part)] if int(part) < len(value) else _MISSING
    return _MISSING


def key(value: Any) -> str:
    """An id as text, so that those of both systems can be compared: ObjectId by its digits, UUIDs in their usual form,
    7 and 7.0 alike. Empty when there is none.
    """
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bytes):  # BSON's binary
        value = _uuid(value) if len(value) == 16 else value.hex()
    return clean(str(value)).strip()[:MAX_KEY_CHARS]


def _uuid(value: bytes) -> str:
    from uuid import UUID

    return str(UUID(bytes=bytes(value)))


def text(value: Any) -> str:
    """What a person would read; lists go line by line."""
    if value is None or isinstance(value, bytes):
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Sequence):
        return "\n".join(filter(None, map(text, value)))
    return "" if isinstance(value, Mapping) else clean(str(value))


def clean(value: str) -> str:
    return _BROKEN.sub("", value) if _BROKEN.search(value) else value


def broken(value: Any) -> bool:
    return isinstance(value, str) and _BROKEN.search(value) is not None


def number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def page(value: Any, first: int = 1) -> int | None:
    """Counted from 1, where the source calls the first page `first`."""
    found = number(value)
    return int(found) + 1 - first if found is not None and first <= found < MAX_PAGE else None


def seconds(value: Any) -> float | None:
    """Since the epoch: of a date, an ISO string, or a number of seconds or milliseconds."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    found = number(value)
    if found is None or not 0 < found < 1e14:
        return None
    return found / 1000 if found > 1e11 else found


def words(value: Any) -> list[str]:
    """Of a list, or of a string that commas divide."""
    if isinstance(value, str):
        return [part.strip() for part in clean(value).split(",") if part.strip()]
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [part for each in value for part in words(each)]
    if isinstance(value, bool) or value is None or isinstance(value, Mapping | bytes):
        return []
    return [text(value)]


def plain(value: Any, depth: int = 0) -> Any:
    """As JSON can hold it."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, str):
        return clean(value)
    if depth < 20 and isinstance(value, Mapping):
        return {clean(str(name)): plain(each, depth + 1) for name, each in value.items()}
    if depth < 20 and isinstance(value, list | tuple):
        return [plain(each, depth + 1) for each in value]
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, bytes):
        return key(value)
    return clean(str(value))


def paths(record: Mapping[str, Any], before: str = "", depth: int = 3) -> Iterator[tuple[str, Any]]:
    """Every path into a record with its value; what is nested comes after what holds it."""
    for name, value in record.items():
        path = f"{before}{name}"
        yield path, value
        if depth > 1 and isinstance(value, Mapping):
            yield from paths(value, f"{path}.", depth - 1)
