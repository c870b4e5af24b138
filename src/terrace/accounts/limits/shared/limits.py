"""Limits of many processes: each counts its share in memory, and asks the others near the end of it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from terrace import settings
from terrace.accounts.limits import store
from terrace.accounts.limits.base import Limit, Subject
from terrace.accounts.limits.board import WATCH_BEGINS
from terrace.accounts.limits.estimates import PriceList
from terrace.accounts.limits.memory import MemoryLimits
from terrace.accounts.limits.refusals import NoRoom
from terrace.accounts.limits.reservations import Kept, Open
from terrace.accounts.limits.shared import members
from terrace.accounts.limits.shared.base import Key
from terrace.accounts.limits.shared.booking import Booking
from terrace.accounts.limits.shared.database import DatabaseStore
from terrace.accounts.limits.shared.sharing import Sharing
from terrace.errors import Invalid, TerraceError, bring
from terrace.stopping import ended
from terrace.storage import Database
from terrace.telemetry.calls import Call, Demand
from terrace.telemetry.ledger import Days, Ledger
from terrace.types import Scope, now

if TYPE_CHECKING:
    from terrace.accounts.limits.shared.meeting import Meeting

log = logging.getLogger(__name__)

TIDY = 60.0  # seconds
RECALL = 2.0  # seconds that others get to hand back what they have idle, once we have asked
PAUSE = 0.05  # between two questions meanwhile
NOTICE = 0.2  # between two looks at where all meet
COMING = 10.0  # seconds a process that counted alone gets to say what it holds


class SharedLimits(MemoryLimits):
    """On PostgreSQL other processes are always reckoned with; on SQLite once there is another one, until when it is
    `MemoryLimits` and nothing else."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        prices: PriceList,
        record: Callable[[Call], None],
        options: settings.Limits,
        clock: Callable[[], float] = now,
        *,
        stored: store.Stored,
        redis: settings.Redis | None = None,
    ) -> None:
        """Processes on PostgreSQL meet in `redis` where one is set."""
        super().__init__(database, ledger, prices, record, options, clock, stored=stored)
        self._redis = redis if redis is not None and redis.url and database.dialect != "sqlite" else None
        self._meeting: Meeting | None = None
        self._books = ledger
        self._sharing: Sharing | None = None
        self._booking = Booking(self._moved)
        ledger.follow(self._booking)
        self._stirred = asyncio.Event()
        self._dead: set[int] = set()
        self._minding: asyncio.Task[None] | None = None
        self._unwatch: Callable[[], None] | None = None
        self._later: asyncio.TimerHandle | None = None

    @property
    def shared(self) -> bool:  # type: ignore[override]
        return self._sharing is not None

    @property
    def through_redis(self) -> bool:
        return self._meeting is not None and self._meeting.through_redis

    @property
    def state(self) -> str:
        """A line for whoever asks how this process does; it begins with `ok` while limits hold."""
        return "ok: through the database" if self._meeting is None else self._meeting.state

    async def start(self) -> None:
        me = self._books.id
        if self._database.dialect == "sqlite":
            if not await self._database.write(members.join, me, self._books.is_alive):
                await self._others_told()
                self._share()
        else:
            await self._database.write(members.beat, me, 0)
            if self._redis is not None:
                self._meeting = _meeting(self._database, self._redis, me)
                await self._meeting.start()
            self._share()
        await super().start()
        self._unwatch = self._database.watch(self._stirred.set)
        self._later = asyncio.get_running_loop().call_later(WATCH_BEGINS, self._stirred.set)
        self._minding = asyncio.create_task(self._mind(), name="who shares limits")

    async def close(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if self._later is not None:
            self._later.cancel()
        if self._minding is not None:
            await ended(self._minding)
            self._minding = None
        await super().close()
        if self._sharing is not None:
            await self._sharing.close()
        if self._meeting is not None:
            await self._meeting.close()

    # -- as MemoryLimits, and the others are asked

    async def wait(self, scope: Scope, demand: Demand, patience: float) -> Open:
        sharing = self._sharing
        if sharing is None or scope.job is None or not self._board.room(scope).bounded:
            return await super().wait(scope, demand, patience)
        amounts = await sharing.claim(scope.job)
        try:
            return await super().wait(scope, demand, patience)
        except BaseException:
            sharing.park_again(scope.job, amounts)
            raise

    async def hold_waiting(self, scope: Scope, demand: Demand) -> Kept:
        if self._sharing is None:
            return self.hold(scope, demand)

        def attempt(*, whole: bool) -> Kept:
            return self._hold(scope, demand, whole=whole)

        try:
            kept: Kept = await self._drawn(self._sharing, attempt)
        except NoRoom as why:
            raise why.told() from None
        return kept

    def release(self, job_id: str) -> None:
        super().release(job_id)
        if self._sharing is not None:
            self._sharing.release(job_id)

    async def show(self, subject: Subject) -> list[Limit]:
        if self._sharing is not None:
            await self._sharing.look([meter for _, meter in self._board.rules(subject) if meter is not None])
        return await super().show(subject)

    async def _patiently(
        self, scope: Scope, attempt: Callable[..., Any], patience: float, undo: Callable[[Any], None]
    ) -> Any:
        sharing = self._sharing
        if sharing is None:
            return await super()._patiently(scope, attempt, patience, undo)
        asked = True

        def again(*, in_turn: bool = False, whole: bool = False) -> Any:
            """Of who waits: a shorter answer only when the others had no room for a whole one."""
            nonlocal asked
            try:
                return attempt(in_turn=in_turn, whole=not asked and in_turn)
            except NoRoom as why:
                asked = not asked
                sharing.ask(why)
                raise

        try:
            return await self._drawn(sharing, attempt)
        except NoRoom:
            return await super()._patiently(scope, again, patience, undo)

    async def _drawn(self, sharing: Sharing, attempt: Callable[..., Any]) -> Any:
        """What `attempt` returns, as soon as the others have room for it. With a shorter answer only when they have
        none for a whole one. Raises NoRoom."""
        loop = asyncio.get_running_loop()
        until, whole = float("inf"), True
        while True:
            try:
                return attempt(whole=whole)
            except NoRoom as why:
                if not whole:
                    raise
                whole = await sharing.draw(why) and loop.time() < until
            until = min(until, loop.time() + RECALL)  # only now the others can hear of it
            if whole:
                with suppress(NoRoom):
                    return attempt(whole=True)
                await asyncio.sleep(PAUSE)

    # -- who else there is

    def _share(self) -> None:
        """From now on our share is ours, and the rest is to be asked for."""
        meeting = self._meeting
        place = DatabaseStore(self._database) if meeting is None else meeting
        self._sharing = Sharing(place, self._books, self._clock, self._line.wake)
        if meeting is not None:
            meeting.moved = self._sharing.again
        self._board.sharing = self._sharing
        self._freed = self._sharing.ended
        self._holds.park, self._holds.unpark = self._sharing.park, self._sharing.release
        self._booking.shared = True
        self._sharing.start()

    def _moved(self, days: Days, latest: dict[Key, int]) -> None:
        if self._sharing is not None:
            self._sharing.booked(days, latest)

    async def _others_told(self) -> None:
        """Until whoever counted alone has said what they hold."""
        loop = asyncio.get_running_loop()
        until = loop.time() + COMING
        while True:
            others = await self._others()
            if not any(alone and self._books.is_alive(id) for id, alone in others):
                return
            if loop.time() > until:
                log.warning("another process on this database doesn't say what it uses of limits; it counts alone")
                return
            await self._database.write(members.knock, self._books.id)  # what was written before it looked woke nobody
            await asyncio.sleep(0.1)

    async def _others(self) -> Sequence[tuple[int, bool]]:
        return await self._database.read(members.others, self._books.id)

    async def _mind(self) -> None:
        """Look after those who come and those who die."""
        loop = asyncio.get_running_loop()
        tidied = loop.time()
        while True:
            try:
                if self._database.dialect == "sqlite":
                    await self._mind_here()
                else:
                    await self._mind_all()
                if loop.time() - tidied > TIDY:
                    await self._database.write(members.tidy)
                    tidied = loop.time()
            except TerraceError as error:
                log.warning("who else counts limits could not be looked up and is looked up later: %s", error)
            await self._rest(loop.time() + (members.BEAT if self.shared else 0.1))

    async def _rest(self, until: float) -> None:
        """Until the next beat. Where all meet may change at any time, and who is awaited there comes soon."""
        loop = asyncio.get_running_loop()
        if self._meeting is None:
            await asyncio.sleep(until - loop.time())
            return
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(NOTICE, left))
            if self._stirred.is_set():
                self._stirred.clear()
                await self._meeting.notice()

    async def _mind_here(self) -> None:
        if self._sharing is None:
            await self._stirred.wait()
            self._stirred.clear()
        found = [id for id, _ in await self._others()]
        alive = [id for id in found if self._books.is_alive(id)]
        if self._sharing is None and alive:
            await self._no_longer_alone()
        elif len(alive) < len(found):
            await self._bury([id for id in found if id not in alive])

    async def _mind_all(self) -> None:
        meeting = self._meeting
        found = await self._database.write(members.beat, self._books.id, 0 if meeting is None else meeting.epoch)
        dead = [each for each in found if each not in self._dead]  # the others' calls are booked elsewhere, some day
        if meeting is not None:
            await meeting.notice()
            await meeting.go_back()
            await meeting.bury(dead)
        if dead:
            await self._bury(dead)
        if meeting is not None:
            await meeting.forget()
        self._dead = set(found)

    async def _bury(self, dead: Sequence[int]) -> None:
        await self._books.take_over()  # if their journals are on this machine
        await self._database.write(members.silent, dead)

    async def _no_longer_alone(self) -> None:
        self._share()
        sharing = self._board.sharing
        assert sharing is not None
        await sharing.join(self._board.meters, known=True)
        await self._database.write(members.not_alone, self._books.id)
        log.info("another process counts against the same limits: from now on they are shared")


def _meeting(database: Database, options: settings.Redis, me: int) -> "Meeting":
    try:
        from terrace.accounts.limits.shared.meeting import Meeting
    except ImportError as error:
        raise Invalid(
            f"redis.url is set, but the Redis client is missing: {bring('redis')}.", code="extra_missing"
        ) from error
    try:
        return Meeting(database, options, me)
    except ValueError as error:
        raise Invalid(
            "redis.url must be like redis://host:6379/0, rediss://... or unix:///path.", code="bad_setting"
        ) from error
