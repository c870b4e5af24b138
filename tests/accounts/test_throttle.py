"""How long a guesser waits. How it is counted, on either database: tests/contracts/test_throttle.py."""

import pytest

from terrace.accounts.guesses import WINDOW, Count, Guess, Rule
from terrace.accounts.throttle import network_of

THREE = Rule("account", 3)
NOON = 1e9


def after(*failures: float, rule: Rule = THREE) -> Count:
    count = Count()
    for at in failures:
        count = rule.after(count, at)
    return count


def test_the_window_slides() -> None:
    third = WINDOW / 3 + 1
    count = after(NOON, NOON + third, NOON + 2 * third)
    assert THREE.wait(count, NOON + 2 * third) > 0
    assert THREE.wait(count, NOON + 3 * third) == 0  # the first has left it
    assert THREE.wait(THREE.after(count, NOON + 3 * third), NOON + 3 * third) > 0


def test_each_failure_beyond_doubles_the_wait_up_to_the_window() -> None:
    count, at, told = Count(), NOON, []
    for _ in range(12):
        wait = THREE.wait(count, at)
        told.append(round(wait))
        at += wait
        assert THREE.wait(count, at) == 0
        count = THREE.after(count, at)
    # Three at once, then a window's wait, then one at a time.
    assert told == [0, 0, 0, 900, 60, 120, 720, 480, 900, 900, 900, 900]
    at += 2 * WINDOW + 1
    assert THREE.wait(count, at) == 0
    assert THREE.after(count, at) == Count((at,), at)  # all is forgotten


def test_a_guesser_who_never_rests_gets_few_guesses() -> None:
    rule, count, at, guesses = Rule("account", 10), Count(), NOON, 0
    while at < NOON + 24 * 3600:
        count = rule.after(count, at)
        guesses += 1
        at += rule.wait(count, at)
    assert guesses < 10 + 10 + 24 * 4


def test_those_under_way_may_fail_yet() -> None:
    assert THREE.wait(after(NOON), NOON, under_way=1) == 0
    assert 0 < THREE.wait(after(NOON), NOON, under_way=2) <= 2
    late = after(NOON, NOON, NOON)
    assert THREE.wait(late, NOON + WINDOW, under_way=0) == 0
    assert THREE.wait(late, NOON + WINDOW, under_way=1) > 0  # beyond the limit one goes after the other


def test_a_clock_that_was_set_back_keeps_nobody_out_for_long() -> None:
    assert THREE.wait(after(NOON, NOON, NOON), NOON - 86_400) == WINDOW


def test_a_limit_that_was_lowered_holds_for_what_was_counted_before() -> None:
    count = after(*[NOON] * 5, rule=Rule("account", 10))
    assert THREE.wait(count, NOON) > 0
    assert len(THREE.after(count, NOON).failures) == 3


def test_what_is_kept_tells_no_name_and_mixes_none_up() -> None:
    guesses = [Guess(rule, name) for rule in (THREE, Rule("address", 3)) for name in ("ada@example.org", "", "\ud800")]
    keys = {each.key for each in guesses}
    assert len(keys) == len(guesses)
    assert not any("ada" in key for key in keys)


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
