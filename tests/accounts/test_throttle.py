"""Guessing is slow, whoever guesses, and nobody is locked out by others."""

import pytest

from terrace import settings
from terrace.accounts.throttle import WINDOW, Attempts, Throttle, network_of
from terrace.errors import Limited

HERS, HOME, ELSEWHERE = "ada@example.org", "192.0.2.1", "198.51.100.9"


class Clock:
    def __init__(self) -> None:
        self.at = 1e9

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(settings.Accounts(login_attempts=3, address_attempts=5), clock=clock)


def fail(throttle: Throttle, times: int, email: str = HERS, address: str = ELSEWHERE) -> None:
    for _ in range(times):
        throttle.check(email, address)
        throttle.failed(email, address)


def waits(throttle: Throttle, email: str = HERS, address: str = ELSEWHERE) -> float:
    try:
        throttle.check(email, address)
    except Limited as told:
        return told.retry_after or 0
    return 0


def test_an_account_gets_so_many_failures_in_the_window(throttle: Throttle, clock: Clock) -> None:
    fail(throttle, 3)
    assert waits(throttle) == pytest.approx(WINDOW, abs=2)
    assert waits(throttle, address="203.0.113.1") > 0  # from wherever
    assert not waits(throttle, email="bob@example.org")
    clock.at += WINDOW - 5
    assert waits(throttle) == pytest.approx(5, abs=2)
    clock.at += 6
    assert not waits(throttle)


def test_the_window_slides(throttle: Throttle, clock: Clock) -> None:
    for _ in range(3):
        fail(throttle, 1)
        clock.at += WINDOW / 3 + 1
    assert not waits(throttle)  # the first has left it
    fail(throttle, 1)
    assert waits(throttle)


def test_each_failure_beyond_doubles_the_wait_up_to_the_window(clock: Clock) -> None:
    attempts = Attempts(3, clock=clock)
    told = []
    for _ in range(12):
        wait = attempts.wait("key")
        told.append(round(wait))
        clock.at += wait
        assert attempts.wait("key") == 0
        attempts.failed("key")
    # Three at once, then a window's wait, then one at a time.
    assert told == [0, 0, 0, 900, 60, 120, 720, 480, 900, 900, 900, 900]
    clock.at += 2 * WINDOW + 1
    assert attempts.wait("key") == 0
    attempts.failed("key")
    assert attempts.wait("key") == 0  # all is forgotten


def test_a_guesser_who_never_rests_gets_few_guesses(clock: Clock) -> None:
    attempts, end, guesses = Attempts(10, clock=clock), clock.at + 24 * 3600, 0
    while clock.at < end:
        attempts.failed("key")
        guesses += 1
        clock.at += attempts.wait("key")
    assert guesses < 10 + 10 + 24 * 4


def test_an_address_gets_so_many_failures_whatever_the_accounts(throttle: Throttle) -> None:
    for n in range(5):
        fail(throttle, 1, email=f"n{n}@example.org")
    assert waits(throttle, email="another@example.org")
    assert not waits(throttle, email="another@example.org", address=HOME)


def test_success_clears_the_accounts_count_and_not_the_addresss(throttle: Throttle) -> None:
    fail(throttle, 2)
    throttle.succeeded(HERS)
    fail(throttle, 2)
    throttle.succeeded(HERS, ELSEWHERE)
    fail(throttle, 1)
    assert waits(throttle, email="mine@example.org")  # five from there: an account of one's own is no way round


def test_nobody_is_locked_out_from_where_they_have_logged_in(throttle: Throttle, clock: Clock) -> None:
    throttle.succeeded(HERS, HOME)
    for hour in range(48):
        for n in range(3):
            if not waits(throttle, address=f"203.0.113.{hour}"):
                fail(throttle, 1, address=f"203.0.113.{hour}")
            assert not waits(throttle, address=HOME), (hour, n)
        clock.at += 1800
    fail(throttle, 3, address=HOME)  # and from there as well one does not guess for ever
    assert waits(throttle, address=HOME)


def test_a_known_address_may_be_told_by_what_is_stored(throttle: Throttle) -> None:
    throttle.remember(HERS, HOME)
    fail(throttle, 3)
    assert waits(throttle)
    assert not waits(throttle, address=HOME)


def test_many_at_once_are_no_way_round(throttle: Throttle) -> None:
    with throttle.attempt(HERS, "192.0.2.10"), throttle.attempt(HERS, "192.0.2.11"):
        with throttle.attempt(HERS, "192.0.2.12"):
            assert 0 < waits(throttle, address="192.0.2.13") <= 2
        assert not waits(throttle, address="192.0.2.13")  # one of them turned out well
    fail(throttle, 3)


def test_an_attempt_that_broke_off_counts_for_nothing(throttle: Throttle) -> None:
    for _ in range(20):
        with pytest.raises(RuntimeError), throttle.attempt(HERS, HOME):
            raise RuntimeError
    assert not waits(throttle, address=HOME)


def test_memory_is_bounded(clock: Clock) -> None:
    attempts = Attempts(10, capacity=100, clock=clock)
    for n in range(1000):
        attempts.failed(n)
        attempts.failed("busy")
    assert len(attempts) == 100
    assert attempts.wait("busy")  # the latest are kept
    throttle = Throttle(settings.Accounts(), capacity=100, clock=clock)
    for n in range(1000):
        throttle.succeeded(f"n{n}@example.org", HOME)
    assert len(throttle._known) == 100


def test_what_is_over_is_forgotten(clock: Clock) -> None:
    attempts = Attempts(3, clock=clock)
    attempts.failed("key")
    clock.at += 2 * WINDOW + 1
    assert not attempts.wait("key")
    assert len(attempts) == 0


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("unknown", "", False),
    ],
)
def test_whose_an_address_is(one: str, another: str, same: bool) -> None:
    assert (network_of(one) == network_of(another)) is same
