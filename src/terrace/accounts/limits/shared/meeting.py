"""Where the processes of one database meet: in Redis while it is there, else in the database.

Each change of the place is another epoch, which the database numbers. Nobody is granted anything in an epoch before
everybody who is alive has said there what they hold; so nothing is granted twice, whoever noticed first.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from sqlalchemy import text
from sqlmodel import Session

from terrace import settings
from terrace.accounts.limits.shared import database, members
from terrace.accounts.limits.shared.base import Key, Line, Moved, Reply, Trip
from terrace.accounts.limits.shared.database import DatabaseStore
from terrace.accounts.limits.shared.redis import Connection, Lost, RedisStore
from terrace.errors import Unavailable
from terrace.storage import Database
from terrace.storage.database import own_locks
from terrace.types import moment, now

log = logging.getLogger(__name__)

GATHERING = 15.0  # seconds until all have come: who is dead is known by then
PAUSE = 0.05
BACK = (2.0, 60.0)  # seconds before Redis is gone back to: at first, and at most when it keeps going away
STEADY = 600.0  # seconds after which an earlier absence is forgotten

BEGIN = text(
    "INSERT INTO limit_meeting (id, epoch, place, run) VALUES (1, 1, 'database', '') ON CONFLICT (id) DO NOTHING"
)
WHERE = text("SELECT epoch, run FROM limit_meeting WHERE id = 1")
KNOWN = text("SELECT id FROM limit_members WHERE id = :id FOR UPDATE")
MOVE = text("UPDATE limit_meeting SET epoch = epoch + 1, place = :place, run = :run WHERE id = 1 AND epoch = :epoch")


class Meeting:
    """`accounts.limits.shared.base.Store`. `moved` is called when another place is met at."""

    def __init__(self, database: Database, options: settings.Redis, me: int) -> None:
        """Raises Invalid for a redis.url that is none."""
        self._database = database
        self._connection = Connection(options.url, options.prefix)
        self._me = me
        self.moved: Callable[[], None] = lambda: None
        self.epoch = 0  # the one in which we have said everything
        self._epoch = 0  # the one there is
        self._run = ""  # of Redis; empty: in the database
        self._last = ""  # where we met in Redis last
        self._store: DatabaseStore | RedisStore = DatabaseStore(database)
        self._open = False
        self._away: tuple[float, str] | None = None
        self._fell = 0.0
        self._patience = BACK[0]

    @property
    def through_redis(self) -> bool:
        return bool(self._run)

    @property
    def state(self) -> str:
        """For /ready; `ok` while limits hold, wherever."""
        if self._run:
            return "ok: through Redis"
        if self._away is None:
            return "ok: through the database, until Redis is reached"
        since, why = self._away
        return f"ok: through the database; Redis is away since {moment(since):%Y-%m-%d %H:%M:%S} UTC ({why})"

    async def start(self) -> None:
        """Be one of those who meet. Nothing is held yet."""
        await self._database.write(_begin)
        await self.notice()
        await self.go_back()
        while self.epoch != self._epoch:
            with suppress(Moved):
                await self._arrive([])

    async def close(self) -> None:
        await self._connection.close()

    # -- as a store

    async def trade(self, trip: Trip) -> Reply:
        """Raises Moved when all has to be said again, elsewhere."""
        if self.epoch != self._epoch:
            await self._arrive(trip.lines)
        if not self._open:
            await self._gather()
        try:
            reply = await self._store.trade(trip)
        except Lost as lost:
            await self._fall(lost)
            raise Moved from lost
        self._check()  # else what was granted where nobody meets any more would be forgotten
        return reply

    async def leave(self, holder: int, lines: Sequence[Line], minutes: Sequence[Line]) -> None:
        if self._run:
            try:
                await self._store.leave(holder, lines, minutes)
                return
            except Lost as lost:
                await self._fall(lost)
        await DatabaseStore(self._database).leave(holder, lines, minutes)

    # -- where

    async def notice(self) -> None:
        """Where all meet now."""
        epoch, run = await self._database.read(_where)
        if epoch == self._epoch:
            return
        if self._run:
            self._last = self._run
        if self._epoch:
            log.warning("limits go through %s from now on", "Redis" if run else "the database")
        self._epoch, self._run, self._open = epoch, run, False
        self._store = RedisStore(self._database, self._connection, run) if run else DatabaseStore(self._database)
        if run:
            self._away = None
        elif self._away is None and self._last:
            self._away = now(), "another process lost it"
        self.moved()

    async def go_back(self) -> None:
        """To Redis, if it is there and has been long enough."""
        loop = asyncio.get_running_loop()
        if self._run or (self._fell and loop.time() < self._fell + self._patience):
            return
        try:
            run = await self._connection.begin()
            if not await self._database.write(_move, self._epoch, "redis", run):
                await self._connection.clear(run)
            elif self._last:
                await self._connection.clear(self._last)
        except Lost as lost:
            self._away = self._away or (now(), str(lost))
            return
        await self.notice()

    async def _fall(self, lost: Lost) -> None:
        loop = asyncio.get_running_loop()
        steady = not self._fell or loop.time() > self._fell + STEADY
        self._patience = BACK[0] if steady else min(self._patience * 2, BACK[1])
        self._fell = loop.time()
        if self._away is None:
            self._away = now(), str(lost)
            log.warning("Redis cannot be used for limits (%s): they go through the database", lost)
        await self._database.write(_move, self._epoch, "database", "")
        await self.notice()

    async def _arrive(self, lines: Sequence[Line]) -> None:
        """Say what we hold where all meet now, and then that we have."""
        epoch, store = self._epoch, self._store
        try:
            await store.join(self._me, lines)
        except Lost as lost:
            await self._fall(lost)
            raise Moved from lost
        await self._database.write(members.beat, self._me, epoch)
        self.epoch = epoch
        self._check()

    def _check(self) -> None:
        if self.epoch != self._epoch:
            raise Moved

    async def _gather(self) -> None:
        """Until everybody has come who is alive; what dead ones hold is carried along."""
        loop = asyncio.get_running_loop()
        until = loop.time() + GATHERING
        while True:
            await self.notice()
            self._check()
            late, dead = await self._database.read(members.missing, self.epoch)
            if not late:
                break
            if loop.time() > until:
                raise Unavailable(
                    "The limits are being handed over to another place. Try again in a moment.",
                    code="limits_moving", retry_after=1,
                )  # fmt: skip
            await asyncio.sleep(PAUSE)
        if isinstance(self._store, RedisStore):
            for holder in dead:
                held = await self._database.read(database.held_by, holder)
                await self._kept(holder, held)
        self._open = True

    # -- the dead, while we meet in Redis

    async def bury(self, dead: Iterable[int]) -> None:
        """Have in the database too what dead ones held: Redis may forget. What of it counts no more ends in Redis."""
        if not isinstance(self._store, RedisStore) or self.epoch != self._epoch:
            return
        store = self._store
        try:
            for holder in dead:
                held = await store.held(holder)
                totals = {key: amount for key, amount in held.items() if not key[1].endswith("|")}
                minutes = {key: amount for key, amount in held.items() if key[1].endswith("minute|")}
                await self._database.write(_keep, holder, totals, minutes)
                await store.keep(holder, totals, minutes, whole=True)
        except Lost as lost:
            await self._fall(lost)

    async def forget(self) -> None:
        """Those whose calls are all booked have nothing any more."""
        if not isinstance(self._store, RedisStore) or self.epoch != self._epoch:
            return
        store = self._store
        try:
            there = await store.members()
            known = await self._database.read(members.everybody)
            for holder in set(there) - known:
                keys = await store.held(holder)
                booked = await self._database.read(database.booked_of, list(keys))
                await store.keep(holder, {}, {}, booked, whole=True)
        except Lost as lost:
            await self._fall(lost)

    async def _kept(self, holder: int, held: dict[Key, int]) -> None:
        assert isinstance(self._store, RedisStore)
        try:
            await self._store.keep(holder, held, {}, whole=True)
        except Lost as lost:
            await self._fall(lost)
            raise Moved from lost


def _where(session: Session) -> tuple[int, str]:
    row = session.execute(WHERE).one()
    return int(row.epoch), str(row.run)


@own_locks
def _begin(session: Session) -> None:
    session.execute(BEGIN)


@own_locks
def _move(session: Session, epoch: int, place: str, run: str) -> bool:
    """False when others have moved already."""
    moved = session.connection().execute(MOVE, {"epoch": epoch, "place": place, "run": run})
    return moved.rowcount == 1


@own_locks
def _keep(session: Session, holder: int, totals: dict[Key, int], minutes: dict[Key, int]) -> None:
    if session.execute(KNOWN, {"id": holder}).first() is not None:  # else its calls were booked just now
        database.keep(session, holder, totals, minutes)
