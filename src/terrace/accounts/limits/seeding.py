"""What is used already of a limit that is new to this process: from the ledger."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from terrace.accounts.limits.base import Subject
from terrace.accounts.limits.meters import MINUTE, Meter, Total, Window, period

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
    for each, settled in zip(totals, before, strict=True):
        begins = day_of(each.begins)
        mine = [line for line in lines if line.day >= begins and belongs(line, each.rule.subject)]
        booked = sum(line.tokens if each.rule.name == "tokens_per_day" else line.cost for line in mine)
        each.used += max(0, booked - settled)


async def _seed_windows(windows: Sequence[Window], ledger: Ledger, clock: Callable[[], float]) -> None:
    calls = sorted(await ledger.recent(MINUTE), key=lambda each: each.started)
    for window in windows:
        requests = window.rule.name == "requests_per_minute"
        mine = [call for call in calls if belongs(call, window.rule.subject)]
        window.remember((call.started, 1 if requests else call.tokens) for call in mine)


def belongs(line: "DayTotal | RecentCall", subject: Subject) -> bool:
    if line.tenant != subject.tenant:
        return False
    return subject.kind == "tenant" or subject.id == (line.user if subject.kind == "user" else line.key)


def day_of(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
