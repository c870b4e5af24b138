"""Guessing is made slow. Failures are counted in the database: every process sees them, and a restart forgives nobody.

Only a failure writes, and a success after one. A count that is over goes, and there are never many more than CAPACITY.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import text
from sqlmodel import Session, col, delete, select

from terrace.accounts.tables import GuessRow
from terrace.errors import Limited
from terrace.storage import Database, own_locks
from terrace.types import now

WINDOW = 900.0  # seconds
FIRST_WAIT = 30.0  # seconds once the limit is reached; doubles with each further failure, up to the window
MAX_DOUBLINGS = 20
CAPACITY = 100_000  # counts kept, the latest
SWEEP = 256  # failures of a process after which it takes away what is over
SWEPT = 20 * SWEEP  # counts at a time, at most

SWEEPING = text(
    "DELETE FROM guesses WHERE key IN (SELECT key FROM guesses WHERE latest <= :over OR latest < "
    "(SELECT latest FROM guesses ORDER BY latest DESC LIMIT 1 OFFSET :last) ORDER BY latest LIMIT :swept)"
)


@dataclass(frozen=True, slots=True)
class Count:
    failures: tuple[float, ...] = ()  # when, within the window; at most as many as are allowed
    latest: float = 0.0  # failure
    beyond: int = 0  # failures since the window was full


@dataclass(frozen=True, slots=True)
class Rule:
    """So many failures each name gets within the window. Each one that reaches or passes that doubles the wait for the
    next, until there has been none for two windows."""

    what: str  # is guessed at
    limit: int

    def wait(self, count: Count, at: float, under_way: int = 0) -> float:
        """Seconds until another attempt is let pass, beside those `under_way`; 0 when one is now."""
        count = self._current(count, at)
        waits = [0.0]
        if len(count.failures) == self.limit:
            waits.append(count.failures[0] + WINDOW - at)
        if count.beyond:
            waits.append(count.latest + min(FIRST_WAIT * 2.0 ** (count.beyond - 1), WINDOW) - at)
        if under_way and (count.beyond or len(count.failures) + under_way >= self.limit):
            waits.append(1.0)  # those under way may still turn out well
        return min(max(waits), WINDOW)  # a clock that was set back keeps nobody out for long

    def after(self, count: Count, at: float) -> Count:
        """With one more failure."""
        count = self._current(count, at)
        failures = (*count.failures, at)[-self.limit :]
        reached = count.beyond or len(failures) == self.limit
        return Count(failures, at, min(count.beyond + 1, MAX_DOUBLINGS) if reached else 0)

    def _current(self, count: Count, at: float) -> Count:
        """Without what has left the window."""
        if count.latest <= at - 2 * WINDOW:
            return Count()
        failures = tuple(each for each in count.failures if each > at - WINDOW)[-self.limit :]
        return Count(failures, count.latest, count.beyond)


class Guess(NamedTuple):
    """What one attempt is counted under."""

    rule: Rule
    name: str

    @property
    def key(self) -> str:
        """Tells the name to nobody who only reads the table."""
        return sha256(f"{self.rule.what}\0{self.name}".encode(errors="replace")).hexdigest()


class Guesses:
    def __init__(self, database: Database, *, capacity: int = CAPACITY, clock: Callable[[], float] = now) -> None:
        self._database = database
        self._capacity = capacity
        self.clock = clock
        self._unswept = SWEEP  # who is restarted often sweeps too

    async def counts(self, *guesses: Guess) -> dict[Guess, Count]:
        return await self._database.read(counted, guesses)

    async def wait(self, *guesses: Guess) -> float:
        """Seconds until all of them may be tried."""
        return longest(await self.counts(*guesses), self.clock())

    async def failed(self, *guesses: Guess) -> float:
        """One more failure of each. Or seconds to wait, when others have used up meanwhile what there was: then nothing
        is counted, and what the attempt has shown must be told to nobody."""
        wait = await self._database.write(count_failure, guesses, self.clock())
        self._unswept += 1
        if self._unswept > SWEEP:
            self._unswept = 0
            await self._database.write(sweep, self.clock(), self._capacity)
        return wait

    async def forgive(self, *guesses: Guess) -> None:
        await self._database.write(forgive, guesses)


# -- transactions


def counted(session: Session, guesses: Collection[Guess]) -> dict[Guess, Count]:
    rows = session.exec(select(GuessRow).where(col(GuessRow.key).in_([each.key for each in guesses]))).all()
    found = {row.key: _count(row) for row in rows}
    return {each: found.get(each.key, Count()) for each in guesses}


@own_locks  # each count's row, in one order
def count_failure(session: Session, guesses: Collection[Guess], at: float) -> float:
    ordered = sorted(guesses, key=lambda each: each.key)
    rows = {each: session.get(GuessRow, each.key, with_for_update=True) for each in ordered}
    counts = {each: Count() if row is None else _count(row) for each, row in rows.items()}
    if wait := longest(counts, at):
        return wait
    for each, row in rows.items():
        count = each.rule.after(counts[each], at)
        row = row or GuessRow(key=each.key)
        row.failures, row.latest, row.beyond = list(count.failures), count.latest, count.beyond
        session.add(row)
    return 0.0


@own_locks
def forgive(session: Session, guesses: Collection[Guess]) -> None:
    session.exec(delete(GuessRow).where(col(GuessRow.key).in_([each.key for each in guesses])))


@own_locks
def sweep(session: Session, at: float, capacity: int) -> None:
    """Take away counts that are over, and the oldest of too many."""
    session.execute(SWEEPING, {"over": at - 2 * WINDOW, "last": capacity - 1, "swept": SWEPT})


def longest(counts: dict[Guess, Count], at: float) -> float:
    return max(each.rule.wait(count, at) for each, count in counts.items())


def _count(row: GuessRow) -> Count:
    return Count(tuple(row.failures), row.latest, row.beyond)


# -- what is said


def too_many(what: str, wait: float) -> Limited:
    seconds = int(wait) + 1
    told = f"{seconds} seconds" if seconds < 120 else f"{-(-seconds // 60)} minutes"
    return Limited(f"Too many failed {what}. Try again in {told}.", code="too_many_attempts", retry_after=seconds)
