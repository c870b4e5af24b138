"""What people write for limits and times."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.accounts.limits.base import LimitName
from terrace.cli import values
from terrace.cli.limits import lasting
from terrace.errors import Invalid


def test_every_limit_has_its_word() -> None:
    assert set(values.LIMITS) == set(get_args(LimitName))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("documents=5", 5),
        ("requests-per-minute=60", 60),
        ("stored_bytes=5GB", 5_000_000_000),
        ("tokens_per_day=20k", 20_000),
        ("tokens_per_day=1_000_000", 1_000_000),
        ("money_per_day=0.25", 0.25),
        ("money_per_day=none", None),
    ],
)
def test_a_limit(written: str, meant: float | None) -> None:
    assert list(values.limits([written]).values()) == [meant]


@pytest.mark.parametrize("written", ["", "documents", "documents=", "documents=-1", "docs=1", "=1", "documents=1e9"])
def test_no_limit(written: str) -> None:
    with pytest.raises(Invalid):
        values.limits([written])


@given(st.text(max_size=40))
def test_whatever_is_written_is_understood_or_refused(text: str) -> None:
    for read in (lambda: values.limits([text]), lambda: values.moment(text), lambda: values.day(text)):
        with suppress(Invalid):
            assert read()


def test_times() -> None:
    assert values.seconds("15m") == 900
    until = datetime.fromisoformat(values.moment("30d"))
    assert timedelta(days=29.99) < until - datetime.now(UTC) < timedelta(days=30.01)
    assert values.moment("2027-01-01T00:00:00Z") == "2027-01-01T00:00:00+00:00"
    assert values.day("2026-11-01") == "2026-11-01"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "1 s"), (90, "90 s"), (600, "10 min"), (9000, "2 h"), (864_000, "10 days")]
)
def test_how_long(seconds: float, told: str) -> None:
    assert lasting(seconds) == told
