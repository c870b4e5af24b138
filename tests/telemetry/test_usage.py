"""Reports over the sums by day, lists of calls, CSV, export, tidying."""

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.telemetry.calls import ADA, Shaky, begin, call, make, sums

from terrace.errors import Invalid
from terrace.storage import Database
from terrace.telemetry.calls import PICODOLLARS, Usage
from terrace.telemetry.ledger import Ledger, Spent
from terrace.telemetry.usage import Group, Line, Report, UsageReport, as_csv
from terrace.types import Scope

BOB = Scope("acme", "usr_bob")
EVE = Scope("globex", "usr_eve")
MOMENT = 1_795_262_400.0  # 2026-11-21T12:00:00Z
DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.moment = MOMENT

    def __call__(self) -> float:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(database: Database, tmp_path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    ledger = Ledger(database, tmp_path / "usage", clock)
    await ledger.start()
    yield ledger
    await ledger.close()


@pytest.fixture
def usage(database: Database, ledger: Ledger, clock: Clock) -> UsageReport:
    return UsageReport(database, ledger, clock)


async def test_by_day_every_day_is_there(usage: UsageReport, ledger: Ledger, clock: Clock) -> None:
    first = make(ledger, usage=Usage(100, 10, 40))
    clock.moment += 2 * DAY
    second = make(ledger, BOB) + make(ledger, BOB)
    make(ledger, EVE)
    report = await usage.by(ADA, "day", "2026-11-20", date(2026, 11, 23))
    assert [(row.group, row.label, row.calls) for row in report.rows] == [
        ("2026-11-20", "2026-11-20", 0), ("2026-11-21", "2026-11-21", 1),
        ("2026-11-22", "2026-11-22", 0), ("2026-11-23", "2026-11-23", 2),
    ]  # fmt: skip
    assert report.rows[1] == Line("2026-11-21", "2026-11-21", 1, 0, 0, 100, 40, 10, first / PICODOLLARS)
    assert report.total == Line("", "total", 3, 0, 0, 120, 40, 20, (first + second) / PICODOLLARS)
    assert (report.by, report.start, report.end) == ("day", date(2026, 11, 20), date(2026, 11, 23))


async def test_by_model_user_and_key_the_dearest_is_first(usage: UsageReport, ledger: Ledger) -> None:
    make(ledger, BOB, model="small")
    make(ledger, ADA, Usage(1000, 1000), model="large")
    make(ledger, Scope("acme"), model="small", price=None)
    ledger.end(begin(ledger, BOB), call(None, "error", "upstream_away"), 0, None)

    async def told(group: Group) -> list[tuple[str, str, int, int, int]]:
        report = await usage.by(ADA, group, "2026-11-01", "2026-11-30", labels=labels)
        assert sum(row.calls for row in report.rows) == report.total.calls == 4
        return [(row.group, row.label, row.calls, row.failed, row.unpriced) for row in report.rows]

    async def labels(group: Group, ids: Sequence[str]) -> Mapping[str, str]:
        assert all(ids)
        return {"usr_ada": "Ada", "key_ada": "laptop"}

    assert await told("model") == [
        ("openai/large", "openai/large", 1, 0, 0), ("openai/small", "openai/small", 2, 0, 1),
        ("openai/gpt-4o", "openai/gpt-4o", 1, 1, 0),
    ]  # fmt: skip
    assert await told("user") == [
        ("usr_ada", "Ada", 1, 0, 0), ("usr_bob", "usr_bob", 2, 1, 0), ("", "no account", 1, 0, 1),
    ]  # fmt: skip
    assert await told("key") == [("key_ada", "laptop", 1, 0, 0), ("", "no key", 3, 1, 1)]


async def test_a_report_of_one_user_or_key_or_tenant(usage: UsageReport, ledger: Ledger) -> None:
    for scope in (ADA, ADA, BOB, EVE, Scope("acme")):
        make(ledger, scope)

    async def calls(scope: Scope = ADA, **only: str) -> int:
        return (await usage.by(scope, "model", "2026-11-21", "2026-11-21", **only)).total.calls

    assert await calls() == 4
    assert await calls(user="usr_ada") == await calls(key="key_ada") == 2
    assert await calls(user="") == 1
    assert await calls(user="usr_eve") == 0  # of another tenant
    assert await calls(model="openai/gpt-4o") == 4
    assert await calls(model="openai/gpt-4o", user="usr_bob") == 1
    assert await calls(model="gpt-4o") == 0
    assert await calls(tenant="globex") == await calls(EVE) == 1


@pytest.mark.parametrize(
    ("group", "start", "end"),
    [
        ("hour", "2026-11-21", "2026-11-21"),
        ("day; DROP TABLE usage", "2026-11-21", "2026-11-21"),
        ("day", "2026-11-22", "2026-11-21"),
        ("day", "yesterday", "2026-11-21"),
        ("day", "0001-01-01", "9999-12-31"),
    ],
)
async def test_a_report_nobody_can_mean_is_refused(usage: UsageReport, group: Group, start: str, end: str) -> None:
    with pytest.raises(Invalid):
        await usage.by(ADA, group, start, end)


async def test_reports_are_there_when_nothing_can_be_written(database: Database, tmp_path: Path, clock: Clock) -> None:
    shaky = Shaky(database)
    ledger = Ledger(shaky, tmp_path / "away", clock, closing=0)
    await ledger.start()
    make(ledger)
    await ledger.flush()
    make(ledger)
    shaky.fails = lambda: "before"
    assert (await UsageReport(shaky, ledger).by(ADA, "day", "2026-11-21", "2026-11-21")).total.calls == 1
    await ledger.close()


# -- single calls


@pytest.mark.both
async def test_calls_are_paged_newest_first(usage: UsageReport, ledger: Ledger, clock: Clock) -> None:
    for number in range(7):
        clock.moment += number % 2  # some begin in the same moment
        make(ledger, ADA, Usage(number, 1))
        make(ledger, EVE)
    seen, cursor = [], None
    while True:
        page, cursor = await usage.calls(ADA, limit=3, cursor=cursor)
        seen += page
        make(ledger, ADA, Usage(99, 1))  # what comes meanwhile moves nothing
        if cursor is None:
            break
    assert [each.input_tokens for each in seen] == [6, 5, 4, 3, 2, 1, 0]
    last = seen[0]
    assert (last.user_id, last.key_id, last.job_id, last.provider, last.model) == (
        "usr_ada", "key_ada", None, "openai", "gpt-4o",
    )  # fmt: skip
    assert last.cost == pytest.approx((6 * 2.5 + 10) / 1e6)
    assert last.started_at.timestamp() == clock.moment
    assert last.estimated is False


async def test_calls_are_filtered(usage: UsageReport, ledger: Ledger) -> None:
    make(ledger, ADA, model="a/b")
    make(ledger, BOB, price=None)
    ledger.end(begin(ledger, Scope("acme")), call(Usage(1, 1), "cancelled"), 1, None)

    async def found(**only: str) -> list[str | None]:
        return [each.user_id for each in (await usage.calls(ADA, **only))[0]]

    assert await found() == [None, "usr_bob", "usr_ada"]
    assert await found(user="usr_bob") == ["usr_bob"]
    assert await found(user="") == [None]
    assert await found(key="key_ada") == await found(model="openai/a/b") == await found(model="a/b") == ["usr_ada"]
    assert await found(model="gpt-4o") == await found(model="openai/gpt-4o") == [None, "usr_bob"]
    assert await found(outcome="cancelled") == [None]
    assert await found(user="usr_eve") == []
    (unpriced,) = (await usage.calls(ADA, user="usr_bob"))[0]
    assert (unpriced.cost, unpriced.price_dated) == (None, None)


@pytest.mark.parametrize(
    "wrong",
    [{"limit": 0}, {"limit": 501}, {"cursor": "x"}, {"cursor": "use_" + "1" * 200}, {"cursor": "use_" + "1" * 36}],
)
async def test_a_page_nobody_can_mean_is_refused(usage: UsageReport, wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        await usage.calls(ADA, **wrong)  # type: ignore[arg-type]


# -- out of the house


def test_a_spreadsheet_computes_nothing() -> None:
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1", 'a,"b"\n', "plain/model-1"]
    lines = [Line(name, name, 1, 0, 0, 2, 1, 3, 0.000000000001) for name in names]
    report = Report("model", date(2026, 11, 1), date(2026, 11, 2), lines, Line("", "total", 9, 0, 0, 18, 9, 27, 12.5))
    rows = list(csv.reader(io.StringIO(as_csv(report), newline="")))
    assert rows[0] == [
        "model", "label", "calls", "failed", "unpriced", "input_tokens", "cached_tokens", "output_tokens", "cost",
    ]  # fmt: skip
    for name, row in zip(names, rows[1:], strict=False):
        assert row[0] == row[1] == (name if name in names[-2:] else "'" + name)
        assert row[2:] == ["1", "0", "0", "2", "1", "3", "0.000000000001"]
    assert rows[-1] == ["", "total", "9", "0", "0", "18", "9", "27", "12.5"]
    zero = Report("day", date(2026, 11, 1), date(2026, 11, 1), [], Line("", "total", 0, 0, 0, 0, 0, 0, 0.0))
    assert as_csv(zero).splitlines()[-1].endswith(",0")


async def test_a_tenants_export_holds_all_of_its_and_nothing_else(
    usage: UsageReport, ledger: Ledger, database: Database
) -> None:
    spent = sum(make(ledger, scope) for scope in (ADA, BOB) for _ in range(600))
    make(ledger, EVE)
    found = {}
    async for path, pieces in usage.export(ADA):
        found[path] = [json.loads(line) for piece in [each async for each in pieces] for line in piece.splitlines()]
    calls, days = found["usage/calls.jsonl"], found["usage/days.jsonl"]
    assert len({each["id"] for each in calls}) == len(calls) == 1200
    assert {each["user_id"] for each in calls} == {each["user_id"] for each in days} == {"usr_ada", "usr_bob"}
    assert sum(each["calls"] for each in days) == 1200
    assert sum(each["cost"] for each in days) == pytest.approx(spent / PICODOLLARS)
    assert sum(each["cost"] for each in calls) == pytest.approx(spent / PICODOLLARS)


async def test_single_calls_go_with_time_and_sums_stay(
    usage: UsageReport, ledger: Ledger, database: Database, clock: Clock
) -> None:
    old = sum(make(ledger) for _ in range(1500))
    await ledger.flush()
    clock.moment += 399 * DAY
    kept = make(ledger)
    await ledger.flush()
    clock.moment += 2 * DAY
    assert await usage.tidy(400) == 1500
    calls, days = await database.read(sums)
    assert (calls[0], calls[6]) == (1, kept)
    assert (days[0], days[6]) == (1501, old + kept)
    assert await ledger.spent("acme", since_day="2026-01-01") == Spent(1501 * 15, old + kept)


async def test_tidying_books_what_a_dead_neighbour_left(
    usage: UsageReport, ledger: Ledger, database: Database, tmp_path: Path
) -> None:
    neighbour = Ledger(database, tmp_path / "neighbour")
    await neighbour.start()
    begin(neighbour, EVE)
    (journal,) = (tmp_path / "neighbour").iterdir()
    (tmp_path / "usage" / "1-dead.journal").write_bytes(journal.read_bytes())
    await usage.tidy(400)
    assert (await ledger.spent("globex", since_day="2026-01-01")).tokens == 150
    await neighbour.close()


async def test_a_report_reads_the_sums_and_not_the_calls(
    usage: UsageReport, ledger: Ledger, database: Database
) -> None:
    """However many calls there are, a report is about days."""
    make(ledger)
    await ledger.flush()

    def without_calls(session: Session) -> None:
        session.execute(text("DELETE FROM usage_pages"))

    await database.write(without_calls)
    for group in ("day", "model", "user", "key"):
        assert (await usage.by(ADA, group, "2026-11-21", "2026-11-21")).total.calls == 1  # type: ignore[arg-type]
