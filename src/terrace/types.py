"""Words every room shares: who is calling, ids, time, JSON."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
JSONObject: TypeAlias = "dict[str, JSON]"

DEFAULT_TENANT = "default"

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]  # ten bits at a time: every request has an id


@dataclass(frozen=True, slots=True)
class Scope:
    """On whose behalf something is done. Every store method takes one and filters by `tenant`; what is private to a
    person (conversations, jobs) by `user` too."""

    tenant: str = DEFAULT_TENANT
    user: str | None = None
    key: str | None = None  # the API key it came with
    job: str | None = None  # the job that does it
    models: tuple[frozenset[str], ...] = ()  # patterns such as `openai/*`; a model must match one of each set


_latest = 0


def new_id(prefix: str) -> str:
    """A sortable id such as `doc_06bq...`: 48 bits of milliseconds, then 80 random bits (as ULID). Of those that one
    process makes in the same millisecond, each is beyond the one before, and still nobody can guess it."""
    global _latest
    number = (int(now() * 1000) << 80) | secrets.randbits(80)
    if number <= _latest and number >> 80 == _latest >> 80:
        number = _latest + 1 + secrets.randbits(64)
    _latest = number
    return f"{prefix}_" + "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -10, -10)])


_agreed: float | None = None


def now() -> float:
    """Seconds since the epoch; what tables store. Who shares a PostgreSQL goes by its clock, however ours is set."""
    return time.time() if _agreed is None else time.monotonic() + _agreed


def agree(beyond: float) -> None:
    """From now on the time is so much beyond the monotonic clock, which nobody can set."""
    global _agreed
    _agreed = beyond


def agreed() -> float | None:
    """What was agreed on; None where nothing was, and the time is this machine's."""
    return _agreed


def moment(seconds: float) -> datetime:
    """What tables store, as an aware UTC datetime; what the API shows."""
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a room's doctor found that is not as it should be, in a sentence for the operator."""

    room: str  # "jobs", "knowledge" ...
    code: str
    message: str
    subject: str  # the id of what it is about, or the setting
    repairable: bool
