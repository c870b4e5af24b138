"""What an attempt's outcome means: delivered, again later, or never again."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

from terrace.errors import TerraceError
from terrace.outbound import Fetched, redacted

ANSWER_BYTES = 2048  # of an answer that are kept
GONE = 410
BACKOFF = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0)  # seconds; the last again and again
JITTER = 0.1  # of it, so that what failed together does not come back together
MAX_SHOWN_URL = 300  # characters


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt at one delivery."""

    delivery_id: str
    at: float
    seconds: float
    delivered: bool = False
    gone: bool = False  # the receiver wants no more, ever
    status: int | None = None
    error: str | None = None
    answer: str | None = None
    retry_after: float = 0.0  # seconds the receiver asks for


def answered(delivery_id: str, at: float, seconds: float, url: str, answer: Fetched) -> Tried:
    status = answer.status
    said = answer.body[:ANSWER_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd")
    if 200 <= status < 300:
        return Tried(delivery_id, at, seconds, delivered=True, status=status, answer=said)
    if status == GONE:
        error = "It answered 410: it wants no more events, so the endpoint was switched off."
    elif 300 <= status < 400:
        error = f"It redirects{_target(url, answer)} ({status}). Redirects are not followed: give the final address."
    else:
        error = f"It answered {status}, and only 2xx counts as received."
    wait = asked_wait(answer.headers.get("retry-after", ""), at)
    return Tried(
        delivery_id, at, seconds, gone=status == GONE, status=status, error=error, answer=said, retry_after=wait
    )


def unanswered(delivery_id: str, at: float, seconds: float, error: TerraceError) -> Tried:
    return Tried(delivery_id, at, seconds, error=error.message)


def next_try(tried: Tried, failures: int, until: float, backoff: Sequence[float] = BACKOFF) -> float | None:
    """When to try again after so many failures; None when that would be too late."""
    wait = backoff[min(failures, len(backoff)) - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    at = tried.at + tried.seconds + max(wait, tried.retry_after)
    return None if at > until else at


def asked_wait(header: str, at: float) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - at)
    except (ValueError, TypeError, OverflowError):
        return 0.0  # none, or nonsense


def _target(url: str, answer: Fetched) -> str:
    location = answer.headers.get("location", "")
    try:
        target = redacted(urljoin(url, location))[:MAX_SHOWN_URL] if location else ""
    except ValueError:
        target = ""
    return f" to {target}" if target and target.isprintable() and "@" not in target else ""
