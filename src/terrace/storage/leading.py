"""One leader among any number of processes: whoever holds a row's lease.

What a leader does must bear being done twice for a moment: a process that was stopped for longer than its lease learns
of it only when it goes on.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from sqlalchemy import CursorResult, TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Field, Session, SQLModel

from terrace.errors import TerraceError
from terrace.storage.database import Database
from terrace.types import new_id, now

log = logging.getLogger(__name__)

LEASE = 30.0  # seconds; a machine whose clock is further off than this leads too long, or never
RENEW = 10.0
SURE = 5 / 6  # of the lease: who has not renewed it by then stops, before another may begin
LOOK = 5.0  # seconds between two looks at another's lease

RENEWED = text("UPDATE leaders SET until = :until WHERE name = :name AND holder = :holder")
TAKEN = text("UPDATE leaders SET holder = :holder, until = :until WHERE name = :name AND until < :now")
FIRST = text("INSERT INTO leaders (name, holder, until) VALUES (:name, :holder, :until) ON CONFLICT DO NOTHING")
GIVEN_UP = text("DELETE FROM leaders WHERE name = :name AND holder = :holder")


class LeaderRow(SQLModel, table=True):
    __tablename__ = "leaders"

    name: str = Field(primary_key=True)
    holder: str
    until: float  # epoch seconds


class Leadership:
    """`leads` while we hold the lease. `forever` tries to, and does the work of a leader meanwhile."""

    def __init__(
        self, database: Database, name: str, *, lease: float = LEASE, renew: float = RENEW, look: float = LOOK
    ) -> None:
        self.holder = new_id("ldr")
        self.leads = False
        self._database = database
        self._name = name
        self._lease = lease
        self._sure = lease * SURE
        self._renew = renew
        self._look = look

    async def forever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` as long as we lead, from its beginning each time we come to; cancelled, hand the lease on at once.

        `work` is cancelled when the lease can't be renewed in time. It must not return before."""
        try:
            while True:
                # It counts from when it is asked for, however late we hear that it is ours.
                held_until = time.monotonic() + self._sure
                if await self._tried(self._take):
                    if time.monotonic() < held_until:
                        await self._lead(work, held_until)
                    else:
                        log.warning("the lease was over when the database said that it is ours: %s", self._name)
                await asyncio.sleep(self._look)
        finally:
            self.leads = False
            await self._tried(self._give_up)

    async def _lead(self, work: Callable[[], Awaitable[None]], held_until: float) -> None:
        log.info("this process leads: %s", self._name)
        self.leads = True
        working = asyncio.ensure_future(work())
        try:
            await self._hold(working, held_until)
        finally:
            self.leads = False
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        if not working.cancelled() and (error := working.exception()) is not None:
            log.error("the leader's work failed, and begins anew: %s", self._name, exc_info=error)

    async def _hold(self, working: "asyncio.Future[None]", held_until: float) -> None:
        """Returns when the lease is lost, may be lost (at `held_until`, monotonic), or the work has ended."""
        while not working.done():
            await asyncio.wait([working], timeout=min(self._renew, max(0.0, held_until - time.monotonic())))
            began = time.monotonic()
            if began >= held_until:
                log.warning("the lease could not be renewed in time: %s", self._name)
                return
            try:
                async with asyncio.timeout(held_until - began):
                    kept = await self._database.write(self._renewed)
            except (TerraceError, DBAPIError, TimeoutError) as error:
                log.warning("the lease could not be renewed, and is tried again: %s", error)
                await asyncio.sleep(min(self._renew / 4, 1.0))
                continue
            if not kept:
                log.warning("another process leads now: %s", self._name)
                return
            held_until = began + self._sure

    async def _tried(self, work: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await work()
        except (TerraceError, DBAPIError) as error:
            log.warning("who leads could not be asked, and is again: %s", error)
            return False

    async def _take(self) -> bool:
        """Written only when there is something to take: who follows costs a read."""
        free = await self._database.read(self._free)
        return free and await self._database.write(self._taken)

    async def _give_up(self) -> bool:
        return await self._database.write(self._given_up)

    def _free(self, session: Session) -> bool:
        row = session.get(LeaderRow, self._name)
        return row is None or row.until < now() or row.holder == self.holder

    def _taken(self, session: Session) -> bool:
        values = self._values()
        return any(_changed(session, statement, values) for statement in (RENEWED, TAKEN, FIRST))

    def _renewed(self, session: Session) -> bool:
        return _changed(session, RENEWED, self._values())

    def _given_up(self, session: Session) -> bool:
        return _changed(session, GIVEN_UP, self._values())

    def _values(self) -> dict[str, object]:
        at = now()
        return {"name": self._name, "holder": self.holder, "until": at + self._lease, "now": at}


def _changed(session: Session, statement: TextClause, values: dict[str, object]) -> bool:
    return cast(CursorResult[Any], session.execute(statement, values)).rowcount == 1
