"""Errors as problem documents, with what a client may act on in the headers."""

from typing import Any

import pytest

from terrace.errors import Invalid, Limited, Missing, TerraceError, Unauthenticated
from terrace.web.problems import from_error, headers_of


def reached(limit: str, value: float, used: float, retry_after: float | None) -> Limited:
    return Limited("No more.", code="limit_reached", retry_after=retry_after, limit=limit, value=value, used=used)


@pytest.mark.parametrize(
    ("error", "policy", "state"),
    [
        (reached("requests_per_minute", 60, 60, 0.2), "q=60;w=60", "r=0;t=1"),
        (reached("tokens_per_day", 1000, 900, 4000), "q=1000;w=86400", "r=100;t=4000"),
        (reached("money_per_month", 2.5, 2.4999, 9), "q=2.500;w=2592000", "r=0.000;t=9"),
        (reached("documents", 5, 9, None), "q=5", "r=0"),
        (reached("concurrent_requests", 2, 2, 1), "q=2", "r=0;t=1"),
    ],
)
def test_a_limit_reached_is_told_in_the_words_of_the_draft(error: Limited, policy: str, state: str) -> None:
    headers = headers_of(error)
    name = error.extra["limit"]
    assert headers["RateLimit-Policy"] == f'"{name}";{policy}'
    assert headers["RateLimit"] == f'"{name}";{state}'
    assert ("Retry-After" in headers) == (error.retry_after is not None)


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (Unauthenticated("Log in."), {"WWW-Authenticate": "Bearer"}),
        (Limited("Too many jobs.", code="queue_full", retry_after=2.1), {"Retry-After": "3"}),
        (Missing("No such thing."), {}),
        (Invalid("No."), {}),
    ],
)
def test_other_errors_carry_what_helps(error: TerraceError, headers: dict[str, Any]) -> None:
    assert headers_of(error) == headers
    assert from_error(error).headers["content-type"] == "application/problem+json"
