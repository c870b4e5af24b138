"""What is used already of a limit that is new to this process: from the ledger."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from terrace.accounts.limits.base import Subject
from terrace.accounts.limits.meters import MINUTE, Meter, Total, Window, period
from terrace.accounts.limits.store import subjects
from terrace.types import Scope

TRIES = 5


class DayTotal(Protocol):
    """What one user came to with one key on one day."""

    @property
    def tenant(self) -> str: ...
    @property
    def user(self) -> str | None: ...
    @property
    def key(self) -> str | None: ...
    @property
    def day(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def cost(self) -> int: ...


class RecentCall(Protocol):
    @property
    def tenant(self) -> str: ...
    @property
    def user(self) -> str | None: ...
    @property
    def key(self) -> str | None: ...
    @property
    def started(self) -> float: ...
    @property
    def tokens(self) -> int: ...


L = TypeVar("L", DayTotal, RecentCall)


class Ledger(Protocol):
    async def totals(self, since_day: str) -> Sequence[DayTotal]: ...
    async def recent(self, seconds: float = 60.0) -> Sequence[RecentCall]: ...


async def seed(meters: Iterable[Meter], ledger: Ledger, clock: Callable[[], float]) -> None:
    """Add what the ledger knows to meters that count from now on what is under way."""
    totals = [each for each in meters if isinstance(each, Total)]
    windows = [each for each in meters if isinstance(each, Window)]
    if totals:
        await _seed_totals(totals, ledger, clock)
    if windows:
        await _seed_windows(windows, ledger, clock)


async def _seed_totals(totals: Sequence[Total], ledger: Ledger, clock: Callable[[], float]) -> None:
    """What ended while the ledger was read is in both; it is read again then, and at worst counted twice."""
    for _ in range(TRIES):
        since = day_of(period("money_per_month", clock())[0])
        before = [each.used - each.held for each in totals]
        lines = await ledger.totals(since)
        if before == [each.used - each.held for each in totals]:
            break
    whose = _by_subject(lines)
    for each, settled in zip(totals, before, strict=True):
        begins = day_of(each.begins)
        mine = [line for line in whose.get(each.rule.subject, ()) if line.day >= begins]
        booked = sum(line.tokens if each.rule.name == "tokens_per_day" else line.cost for line in mine)
        each.used += max(0, booked - settled)


async def _seed_windows(windows: Sequence[Window], ledger: Ledger, clock: Callable[[], float]) -> None:
    whose = _by_subject(sorted(await ledger.recent(MINUTE), key=lambda each: each.started))
    for window in windows:
        requests = window.rule.name == "requests_per_minute"
        mine = whose.get(window.rule.subject, ())
        window.remember((call.started, 1 if requests else call.tokens) for call in mine)


def _by_subject(lines: Iterable[L]) -> dict[Subject, list[L]]:
    """Each line belongs to a tenant, and perhaps to a user and to a key. There may be as many subjects as lines."""
    whose: dict[Subject, list[L]] = defaultdict(list)
    for line in lines:
        for subject in subjects(Scope(line.tenant, line.user, line.key)):
            whose[subject].append(line)
    return whose


def day_of(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
