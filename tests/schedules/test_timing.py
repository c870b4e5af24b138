"""When things are due: on the wall clock, over the days on which it leaps, and what is refused at the door."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from terrace.errors import Invalid
from terrace.schedules.timing import timing
from terrace.schedules.words import sentence

BERLIN = "Europe/Berlin"


def at(local: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone)).timestamp()


def due(cron: str, since: str, count: int, zone: str = BERLIN) -> list[str]:
    """The next times after a local one, as the clock on the wall shows them, with their offset."""
    given, moment, told = timing(cron, None, zone), at(since, zone), []
    for _ in range(count):
        moment = given.next(moment, 0)
        told.append(datetime.fromtimestamp(moment, ZoneInfo(zone)).strftime("%d %H:%M %z"))
    return told


def test_a_time_that_exists_twice_is_due_once() -> None:
    assert due("30 2 * * *", "2026-10-24T12:00", 3) == ["25 02:30 +0200", "26 02:30 +0100", "27 02:30 +0100"]


def test_a_time_that_does_not_exist_is_due_at_the_next_that_does() -> None:
    assert due("30 2 * * *", "2026-03-28T12:00", 2) == ["29 03:00 +0200", "30 02:30 +0200"]
    assert due("0 2,3 * * *", "2026-03-28T12:00", 2) == ["29 03:00 +0200", "30 02:00 +0200"]
    assert due("10 2 * * *", "2026-10-03T12:00", 1, "Australia/Lord_Howe") == ["04 02:30 +1100"]
    assert due("0 12 * * *", "2011-12-29T13:00", 2, "Pacific/Apia") == ["31 00:00 +1400", "31 12:00 +1400"]


def test_what_is_due_every_hour_goes_with_real_time() -> None:
    assert due("0 * * * *", "2026-10-25T01:00", 3) == ["25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100"]
    assert due("30 0-23 * * *", "2026-10-25T02:00", 2) == ["25 02:30 +0200", "25 02:30 +0100"]
    assert due("*/30 * * * *", "2026-03-29T01:29", 3) == ["29 01:30 +0100", "29 03:00 +0200", "29 03:30 +0200"]
    assert due("0 * 1 7 *", "2026-10-25T00:30", 1) == ["01 00:00 +0200"]


def test_leap_days_and_ends_of_months() -> None:
    assert due("0 0 29 2 *", "2096-03-01T00:00", 1, "UTC") == ["29 00:00 +0000"]
    assert due("0 0 l * *", "2026-02-01T00:00", 2, "UTC") == ["28 00:00 +0000", "31 00:00 +0000"]


def test_seconds_keep_their_beat_whatever_was_missed() -> None:
    hourly = timing(None, 3600, "UTC")
    assert hourly.next(1000, 1000) == 4600
    assert hourly.next(1000 + 10 * 3600 + 5, 1000) == 1000 + 11 * 3600
    assert hourly.next(500, 1000) == 4600  # the clock went back


EXPRESSIONS = ["30 2 * * *", "*/15 * * * *", "0 */3 * * *", "5 1-4 * * 0", "59 23 l * *", "0 3 * 3,10 sun"]


@given(
    st.sampled_from(EXPRESSIONS),
    st.integers(at_least := int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()), at_least + 10 * 366 * 86_400),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]),
)
@example("30 2 * * *", int(at("2026-03-29T01:59:59")), BERLIN)
@example("*/15 * * * *", int(at("2026-10-25T02:59:59")), BERLIN)
def test_the_next_time_is_later_and_shown_by_the_clock(cron: str, since: int, zone: str) -> None:
    given = timing(cron, None, zone)
    first = given.next(since, 0)
    assert first > since
    assert given.next(first - 1, 0) == first  # none lies between
    assert given.next(first, 0) > first
    wall = datetime.fromtimestamp(first, ZoneInfo(zone))
    before = wall.astimezone(UTC) - timedelta(seconds=1)
    leapt = before.astimezone(ZoneInfo(zone)).utcoffset() != wall.utcoffset()
    if cron == "30 2 * * *" and not leapt:
        assert (wall.hour, wall.minute) == (2, 30)
    if cron == "*/15 * * * *" and zone == BERLIN:
        assert wall.minute % 15 == 0
        assert first - since <= 900


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 0 31 2 *", "never fires"),
        ("0 0 31 4,6 *", "never fires"),
        ("0 0 30 2 *", "never fires"),
        ("* * * * * *", "Leave seconds and years out"),
        ("0 0 1 1 * 2030 0", "Leave seconds and years out"),
        ("0 25 * * *", "'25' cannot stand in the field for the hour"),
        ("61 * * * *", "field for the minute"),
        ("0 0 * * mon-", "field for the day of the week"),
        ("H * * * *", "field for the minute"),
        ("R R * * *", "field for the minute"),
        ("*/0 * * * *", "field for the minute"),
        ("0 0 jan * *", "field for the day of the month"),
        ("every day", "five fields"),
        ("@reboot", "five fields"),
        ("", "five fields"),
        ("1," * 200 + "1 * * * *", "at most 100 characters"),
        ("é * * * *", "field for the minute"),
        ("\x00 * * * *", "field for the minute"),
    ],
)
def test_what_cannot_be_read_or_never_fires_is_refused(cron: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        timing(cron, None, "UTC")


@given(st.text("0123456789*/,-#l? jansunmo@hR\t", max_size=110))
def test_any_expression_is_refused_or_fires(cron: str) -> None:
    try:
        given = timing(cron, None, BERLIN)
    except Invalid:
        return
    assert given.next(0, 0) > 0
    assert sentence(given).endswith("Europe/Berlin.")


@pytest.mark.parametrize(
    ("cron", "every", "zone", "said"),
    [
        (None, 59, "UTC", "between 60"),
        (None, 10**12, "UTC", "between 60"),
        (None, None, "UTC", "either"),
        ("@daily", 60, "UTC", "either"),
        ("@daily", None, "Berlin", "Is Europe/Berlin meant"),
        ("@daily", None, "../../etc/passwd", "no time zone"),
        ("@daily", None, "Europe", "no time zone"),
        ("@daily", None, "", "Write it as Europe/Berlin"),
    ],
)
def test_what_is_refused_besides(cron: str | None, every: int | None, zone: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        timing(cron, every, zone)


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("30 2 * * *", "Every day at 02:30, UTC."),
        ("@hourly", "Every hour, UTC."),
        ("5 * * * *", "Every hour at minute 5, UTC."),
        ("* * * * *", "Every minute, UTC."),
        ("0 */2 * * *", "Every 2 hours, UTC."),
        ("*/15 9-17 * * 1-5", "Every 15 minutes of hours 9 to 17, every Monday to Friday, UTC."),
        ("0 8,20 * jan,jul *", "Every day in January and July at 08:00 and 20:00, UTC."),
        ("0 0 1,15 * *", "On day 1 and day 15 of the month at 00:00, UTC."),
        ("0 0 l * *", "On the last day of the month at 00:00, UTC."),
        ("0 9 * * fri#2", "On the second Friday of the month at 09:00, UTC."),
        ("0 0 1 * mon", "On day 1 of the month and every Monday at 00:00, UTC."),
        ("@weekly", "Every Sunday at 00:00, UTC."),
    ],
)
def test_what_a_timing_means_in_words(cron: str, words: str) -> None:
    assert sentence(timing(cron, None, "UTC")) == words


@pytest.mark.parametrize(
    ("every", "words"),
    [(3600, "Every hour."), (7200, "Every 2 hours."), (90, "Every 90 seconds."), (604_800, "Every week.")],
)
def test_what_seconds_mean_in_words(every: int, words: str) -> None:
    assert sentence(timing(None, every, "UTC")) == words
