"""The books: every model call, once, whatever dies. Nothing is written to the database while a call is made.

A call is noted in the journal when it begins, with what is reserved for it, and when it ends, with what it came to.
What has ended is booked in batches a moment later: the calls, and their days' sums, in one transaction that may be
repeated, because a batch has a number.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from sqlmodel import Session

from terrace.errors import TerraceError, Unavailable
from terrace.storage import Database, after_commit
from terrace.storage.database import own_locks
from terrace.telemetry import store
from terrace.telemetry.calls import Call, Demand
from terrace.telemetry.journal import MOST, Journal, is_held, leftovers
from terrace.telemetry.prices import Price
from terrace.telemetry.records import Entry, decode
from terrace.telemetry.store import Batch, Recent, Total, day_of
from terrace.types import Scope, now

__all__ = ["Days", "Follower", "Ledger", "Recent", "Recovered", "Spent", "Total"]

R = TypeVar("R")

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.4  # how long an ended call waits at most; nothing runs while none does
MANY = 5000  # ended calls that are booked at once, in one transaction
RETRY_SECONDS = 5.0  # the longest wait before a database that refused is asked again
CLOSING_SECONDS = 5.0  # how long the end waits for such a database
ERASED = 10_000  # erased users remembered, whose calls may still be under way


@dataclass(frozen=True, slots=True)
class Recovered:
    """What dead processes left: calls that had ended, and calls that had not, which count as their reservation."""

    ended: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    tokens: int = 0
    cost: int = 0  # picodollars


Days = Mapping[tuple[str, int, str, str, str], list[int]]
"""Sums (`store.SUMS`) by tenant, day since 1970, user, key and model."""


class Follower(Protocol):
    """Hears of what is booked; the first three are called in the transaction that books it."""

    def before(self, session: Session, days: Days) -> None:
        """It is about to be booked."""

    def booking(self, session: Session, journal: int, days: Days) -> None:
        """It is booked, if the transaction comes to its end."""

    def buried(self, session: Session, journal: int) -> None:
        """All that a dead process left is booked."""

    def booked(self, journal: int, days: Days) -> None:
        """It is durable. On the event loop, in the very turn in which the calls leave our journal."""


class Ledger:
    """`begin` and `end` are for the event loop's thread."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        clock: Callable[[], float] = now,
        *,
        most: int = MOST,
        closing: float = CLOSING_SECONDS,
    ) -> None:
        """`folder` holds the journals of all processes that share the database; `most` bounds the calls
        in ours, and `closing` the seconds `close` waits for a database that refuses."""
        self._database = database
        self._folder = folder
        self._clock = clock
        self._most = most
        self._closing = closing
        self._journal: Journal | None = None
        self._loop: asyncio.AbstractEventLoop
        self._ended: list[int] = []  # slots, not booked yet
        self._armed = False  # a timer runs, or a task books
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._booking = asyncio.Lock()
        self._failures = 0  # in a row
        self._batches = 0
        self._doubtful: Batch | None = None  # whose booking broke off: who knows whether it was kept
        self._closed = False
        self._erased: dict[str, None] = {}
        self._follower: Follower | None = None

    @property
    def id(self) -> int:
        """Of our journal: what tells this process from all others that ever booked."""
        if self._journal is None:
            raise Unavailable("The server is shutting down.", code="shutting_down")
        return self._journal.id

    def follow(self, follower: Follower) -> None:
        """Have it hear of what this process books, its own calls and dead processes', from now on."""
        self._follower = follower

    def is_alive(self, journal: int) -> bool:
        """Whether the process of that journal is there, on this machine."""
        return is_held(self._folder, journal)

    async def start(self) -> Recovered:
        """Book what dead processes left, then be ready. Raises Unavailable."""
        self._loop = asyncio.get_running_loop()
        recovered = await self.take_over()
        self._journal = await asyncio.to_thread(Journal, self._folder, most=self._most)
        return recovered

    def begin(
        self,
        scope: Scope,
        demand: Demand,
        reserved_input: int,
        reserved_output: int,
        price: Price | None,
        reserved_cost: int | None,
    ) -> int:
        """Note a call that is about to be made; `end` wants the number. Should we die, the reservation is booked.

        Raises Unavailable when no more can be noted: then the call must not be made.
        """
        if self._journal is None or self._closed:
            raise Unavailable("The server is shutting down.", code="shutting_down")
        dated = None if price is None else price.dated
        return self._journal.begin(
            scope, demand, self._clock(), reserved_input, reserved_output, reserved_cost, dated
        )  # fmt: skip

    def end(self, slot: int, call: Call, cost: int | None, price_dated: str | None) -> None:
        """Note what a call came to (cost None: its price is not known). Once for each `begin`; never raises."""
        if self._journal is None or not self._journal.end(slot, call, cost, price_dated):
            log.error("a call of %s/%s ended twice, or after the books were closed", call.provider, call.model)
            return
        self._ended.append(slot)
        if self._closed:
            return  # the next start books it
        if not self._armed:
            self._arm(FLUSH_SECONDS)
        elif len(self._ended) == MANY and self._timer is not None:
            self._timer.cancel()
            self._book_soon()

    async def flush(self) -> None:
        """Book what has ended by now. Raises what the database raises; nothing is lost by it."""
        async with self._booking:
            journal = self._journal
            left = len(self._ended)  # what ends meanwhile waits for the next time, or there would be no end to it
            while journal is not None and left > 0:
                left -= await self._book_some(journal)

    async def _book_some(self, journal: Journal) -> int:
        """Book a batch; how many calls that were."""
        if (batch := self._doubtful) is None:
            slots = journal.read(self._ended[:MANY])
            batch = self._doubtful = Batch(journal.id, self._batches, slots, self._erased.keys())
            self._batches += 1
        await self._database.write(_book, batch, self._clock(), self._follower)
        for user in self._erased.keys() - batch.erased:  # meanwhile
            await self._database.write(store.erase, user)
        booked = self._ended[: batch.ended]
        self._doubtful = None
        del self._ended[: len(booked)]
        journal.free(booked)
        if self._follower is not None:
            self._follower.booked(batch.journal, batch.days)
        return len(booked)

    async def quietly(self, work: Callable[[Days], None]) -> None:
        """Call `work` with the sums of what has ended and is not booked, while nothing is being booked."""
        async with self._booking:
            journal = self._journal
            if journal is not None and self._doubtful is not None:  # nobody knows whether it was booked
                await self._book_some(journal)
            slots = journal.read(self._ended) if journal is not None else []
            work(Batch(0, 0, slots, self._erased.keys()).days)

    async def catch_up(self) -> bool:
        """As `flush`, but whether it could be done; that a database refuses is logged once, and it is tried again."""
        try:
            await self.flush()
        except Exception as error:  # whatever it is, the calls stay in the journal
            self._failures = min(self._failures + 1, 10)
            if self._failures == 1:
                told = not isinstance(error, TerraceError) and error
                log.warning(
                    "%d model calls wait to be booked; it is tried again: %s", len(self._ended), error, exc_info=told
                )
            return False
        if self._failures:
            log.info("the model calls that waited are booked")
        self._failures = 0
        return True

    async def close(self) -> None:
        """Book everything that has ended. What a database does not take now, or is still under way, stays in the
        journal for the next start."""
        try:
            async with asyncio.timeout(self._closing):
                await self._book_all()
        except TimeoutError:
            log.error("%d model calls could not be booked; the next start books them", len(self._ended))
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        journal = self._journal
        if journal is not None and journal.busy == len(self._ended):
            self._journal = None
            journal.close()
        elif journal is not None:  # its lock is held until the process is gone: what ends till then is still noted
            log.warning(
                "%d model calls are still under way; the next start books them", journal.busy - len(self._ended)
            )

    async def take_over(self) -> Recovered:
        """Book the calls of processes that died. Several may try at once: each file is one's only."""
        ended = lost = 0
        files = leftovers(self._folder)
        while (file := await asyncio.to_thread(next, files, None)) is not None:
            try:
                booked = await self._database.write(_book_left, file.journal, file.slots, self._clock(), self._follower)
                await asyncio.to_thread(file.remove)
            finally:
                file.close()
            ended, lost = ended + booked[0], lost + booked[1]
        if ended or lost:
            log.warning(
                "A process died: %d model calls that it had made were booked now, and %d that it was making were "
                "booked as the most they may have cost", ended, lost,
            )  # fmt: skip
        return Recovered(ended, lost)

    # -- what was spent

    async def totals(self, since_day: str) -> list[Total]:
        """What came of calls begun on that UTC day (2026-11-21) or later and ended by now, booked or not, by tenant,
        user, key and day. A tenant's sum is that of all its lines."""
        found, waiting = await self._with_waiting(lambda session: store.totals(session, since_day))
        return found + [
            Total(
                each.tenant_id, each.user_id, each.key_id, day, each.input_tokens + each.output_tokens, each.cost or 0
            )
            for each in waiting
            if (day := day_of(each.started_at)) >= since_day
        ]

    async def spent(self, tenant: str, user: str | None = None, key: str | None = None, *, since_day: str) -> Spent:
        """Of one tenant, or of a user or key in it."""
        lines = [
            line
            for line in await self.totals(since_day)
            if line.tenant == tenant and user in (None, line.user) and key in (None, line.key)
        ]
        return Spent(sum(line.tokens for line in lines), sum(line.cost for line in lines))

    async def recent(self, seconds: float = 60.0) -> list[Recent]:
        """Calls that began in the last seconds and have ended, booked or not."""
        since = self._clock() - seconds
        found, waiting = await self._with_waiting(lambda session: store.recent(session, since))
        return [each for each in found if each.started >= since] + [
            Recent(each.tenant_id, each.user_id, each.key_id, each.started_at, each.input_tokens + each.output_tokens)
            for each in waiting
            if each.started_at >= since
        ]

    # -- erasure, inside the transaction of whoever erases

    def erase(self, session: Session, user_id: str) -> None:
        """Keep the numbers of a person's calls and no link to the person, those still under way included."""
        store.erase(session, user_id)
        after_commit(session, lambda: self._remember(user_id))

    def erase_tenant(self, session: Session, scope: Scope) -> None:
        store.erase_tenant(session, scope)

    def _remember(self, user_id: str) -> None:
        self._erased[user_id] = None
        if len(self._erased) > ERASED:
            del self._erased[next(iter(self._erased))]

    # -- booking

    def _arm(self, seconds: float) -> None:
        self._armed = True
        self._timer = self._loop.call_later(seconds, self._book_soon)

    def _book_soon(self) -> None:
        self._timer = None
        self._task = self._loop.create_task(self._book_in_turn(), name="ledger")

    async def _book_in_turn(self) -> None:
        await self.catch_up()
        if self._ended:
            self._arm(min(RETRY_SECONDS, FLUSH_SECONDS * 2**self._failures))
        else:
            self._armed = False

    async def _book_all(self) -> None:
        if self._task is not None:
            await self._task
        for pause in itertools.chain([0.0], itertools.repeat(0.2)):
            await asyncio.sleep(pause)
            if await self.catch_up():
                return

    async def _with_waiting(self, work: Callable[[Session], list[R]]) -> tuple[list[R], list[Entry]]:
        """What `work` reads, and the ended calls it could not see because they are not booked."""
        async with self._booking:  # nothing leaves the journal meanwhile, though calls may end
            journal, doubtful = self._journal, self._doubtful
            if journal is None:
                return await self._database.read(work), []
            found, last = await self._database.read(
                lambda session: (work(session), store.batch_of(session, journal.id))
            )
            first = doubtful.ended if doubtful is not None and last == doubtful.number else 0
            slots = journal.read(self._ended[first:])
            return found, await asyncio.to_thread(lambda: [decode(slot, journal.id) for slot in slots])


# -- in a transaction


@own_locks  # a batch is its process's alone, and sums are added to by one statement
def _book(session: Session, batch: Batch, moment: float, follower: Follower | None) -> None:
    if follower is not None:
        follower.before(session, batch.days)
    if store.book(session, batch, moment) and follower is not None:
        follower.booking(session, batch.journal, batch.days)


@own_locks  # the file's lock makes it one process's alone
def _book_left(
    session: Session, journal: int, slots: Sequence[bytes], moment: float, follower: Follower | None
) -> tuple[int, int]:
    """How many calls had ended, and how many had not."""
    batch = store.left_of(session, journal, slots)
    if follower is not None:
        follower.before(session, batch.days)
    booked = store.book(session, batch, moment)
    if follower is not None:
        if booked:
            follower.booking(session, journal, batch.days)
        follower.buried(session, journal)
    return (batch.ended, batch.lost) if booked else (0, 0)
