"""A process's shares of limits: drawn when a call needs more, handed back when nobody here does.

Meters go on deciding alone, up to their share; nothing is asked on the way of a call that its share lets pass. All that
is to be asked and said goes in one trip at a time, and what comes up meanwhile in the next.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from terrace.accounts.limits.meters import Meter, Total, Window
from terrace.accounts.limits.refusals import NoRoom
from terrace.accounts.limits.reservations import Kept
from terrace.accounts.limits.room import Room
from terrace.accounts.limits.shared import keys
from terrace.accounts.limits.shared.base import Key, Line, Moved, Park, Reply, Store, Trip
from terrace.accounts.limits.shared.share import Share
from terrace.errors import TerraceError, Unavailable
from terrace.stopping import ended
from terrace.telemetry.ledger import Days

log = logging.getLogger(__name__)

LOOK = 0.2  # seconds between two looks at what lies idle
GATHER = 0.02  # what is handed back within this goes together
PAUSE = 0.05  # before it is said again what could not be said
PARKED = 900.0  # seconds room is kept for a job
CLAIMED = 10_000  # jobs remembered whose room was claimed


class Quiet(Protocol):
    """As much of `terrace.telemetry.ledger.Ledger` as this needs."""

    @property
    def id(self) -> int: ...
    async def quietly(self, work: Callable[[Days], None]) -> None: ...


Lacking = dict[Share, bool]  # of what we did not get all of a trip: whether it may be had soon


class Sharing:
    """Of one process. `freed` is called when there is more room."""

    def __init__(self, store: Store, ledger: Quiet, clock: Callable[[], float], freed: Callable[[], None]) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._freed = freed
        self.holder = ledger.id
        self._shares: dict[Meter, Share] = {}
        self._live: dict[Meter, Share] = {}  # those of which we have something, or want it
        self._gone: list[Key] = []  # of limits that there are no more
        self._parks: list[Park] = []
        self._claims: list[str] = []
        self._releases: list[str] = []
        self._claimed: dict[str, dict[Key, int]] = {}
        self._asking: asyncio.Future[Lacking] | None = None  # the next trip
        self._under_way: asyncio.Future[Lacking] | None = None  # this one
        self._moved = False  # all meet elsewhere now, and wait for us there
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="shares of limits")

    async def close(self) -> None:
        """Keep what is to be booked yet and hand everything else back."""
        self._closed = True
        if self._task is not None:
            await ended(self._task)
            self._task = None
        for asked in (self._asking, self._under_way):
            if asked is not None and not asked.done():
                asked.set_exception(_shutting_down())
        shares = [each for each in self._live.values() if each.meter.used > 0]
        totals = [each.holding() for each in shares if isinstance(each.meter, Total)]
        minutes = [each.holding() for each in shares if isinstance(each.meter, Window)]
        try:
            await self._store.leave(self.holder, totals, minutes)
        except TerraceError as error:
            log.warning("the shares of limits could not be handed back and count until they are found: %s", error)

    # -- meters come and go

    async def join(self, meters: Callable[[], Iterable[Meter]], *, known: bool = False) -> None:
        """From now on these are shared. They hold what is reserved here, and what has ended and is not booked; those
        of the minute hold that already where they are `known`."""

        def work(days: Days) -> None:
            unbooked, minutes = keys.amounts(days), keys.minutes(days)
            for meter in meters():
                if isinstance(meter, Total):
                    meter.shared = True
                    meter.used = meter.held + unbooked.get(keys.key_of(meter), 0)
                elif isinstance(meter, Window) and not known and (amount := minutes.get(keys.key_of(meter), 0)):
                    meter.take(amount, self._clock())
                meter.limit = meter.used
                share = self._shares[meter] = Share(meter)
                self._live.pop(meter, None)
                if meter.limit:
                    self._live[meter] = share
            for share in self._shares.values():
                share.ruled()

        await self._ledger.quietly(work)
        await self._tell()

    def forget(self, meters: Iterable[Meter]) -> None:
        for meter in meters:
            share = self._shares.pop(meter, None)
            self._live.pop(meter, None)
            if share is not None and share.told is not None:
                self._gone.append(share.told[0])

    def again(self) -> None:
        """Whoever we told what we hold is not asked any more: all is to be said anew, also that it is nothing."""
        for share in self._shares.values():
            share.told, share.keep = None, 0
        self._gone.clear()
        self._moved = True
        self._news.set()

    # -- what calls need

    async def draw(self, why: NoRoom) -> bool:
        """Ask for what is missing; whether it is to be had: we got it, even if another call of ours was quicker, or
        it may come free soon. Raises Unavailable."""
        asked = self._want(why)
        for share in asked:
            share.awaited += 1
        try:
            lacking = await self._tell()
        finally:
            for share in asked:
                share.awaited -= 1
        soon = [lacking[each] for each in asked if each in lacking]
        return bool(asked) and (not soon or any(soon))

    def ask(self, why: NoRoom) -> None:
        """As `draw`, for whoever looks again by themselves."""
        self._want(why)
        self._stir()

    async def look(self, meters: Iterable[Meter]) -> None:
        """Learn what others use."""
        for meter in meters:
            if meter in self._shares:
                self._shares[meter].anew = True
                self._live[meter] = self._shares[meter]
        await self._tell()

    def ended(self, room: Room) -> None:
        """A call ended: what it leaves is handed back at once where others may wait for it."""
        for meter in room:
            if (share := self._live.get(meter)) is not None:
                share.busy = True
                if not share.keep and meter.limit > meter.used:
                    self._news.set()

    def booked(self, days: Days, latest: dict[Key, int]) -> None:
        """What we held of it is the ledger's now; `latest` tells what is booked in all."""
        amounts = keys.amounts(days)
        if not amounts:
            return
        for share in list(self._live.values()):
            meter = share.meter
            if isinstance(meter, Total) and (amount := amounts.get(key := keys.key_of(meter), 0)):
                meter.used -= amount
                meter.limit -= amount
                meter.elsewhere += amount  # until we ask again
                meter.booked += amount
                share.booked = latest.get(key, share.booked)
                if share.crowded:
                    self._news.set()

    # -- room for jobs

    def park(self, kept: Kept, job_id: str) -> None:
        """Keep a hold where whichever process runs the job finds it. The minute is not kept: its job waits for it."""
        amounts = {}
        for meter in (*kept.room.totals, *kept.room.money):
            amount = kept.tokens if meter.rule.name == "tokens_per_day" else kept.cost
            if meter in self._shares and amount and kept.started >= meter.begins:
                amounts[keys.key_of(meter)] = amount
                meter.limit -= amount
                self._shares[meter].anew = True
        if amounts:
            self._parks.append(Park(job_id, amounts, PARKED))
            self._stir()

    async def claim(self, job_id: str) -> dict[Key, int]:
        """A call of this job begins here: have what is parked for it."""
        if job_id in self._claimed:
            return {}
        if len(self._claimed) >= CLAIMED:
            self._claimed.clear()
        self._claimed[job_id] = {}
        if (amounts := self._leaving(job_id)) is not None:
            self._have(amounts)
            return amounts
        self._claims.append(job_id)
        await self._tell()
        return self._claimed.get(job_id, {})

    def park_again(self, job_id: str, amounts: dict[Key, int]) -> None:
        """The call did not come about: what is left of its room is the job's again."""
        self._claimed.pop(job_id, None)
        mine = self._mine()
        left = {}
        for key, amount in amounts.items():
            if key in mine and (idle := min(amount, mine[key].meter.limit - mine[key].meter.used)) > 0:
                mine[key].meter.limit -= idle
                mine[key].anew = True
                left[key] = idle
        if left:
            self._parks.append(Park(job_id, left, PARKED))
            self._stir()

    def release(self, job_id: str) -> None:
        """The job is over, or not to be."""
        if (amounts := self._leaving(job_id)) is not None:
            self._have(amounts)
        elif self._claimed.pop(job_id, None) is None and self._shares:
            self._releases.append(job_id)
            self._news.set()

    def _leaving(self, job_id: str) -> dict[Key, int] | None:
        """What is about to be parked for a job, and now is not."""
        found = [park for park in self._parks if park.job == job_id]
        self._parks = [park for park in self._parks if park.job != job_id]
        return found[-1].amounts if found else None

    def _have(self, amounts: dict[Key, int]) -> None:
        """These are granted already; of limits that there are no more, they are to be handed back."""
        mine = self._mine()
        for key, amount in amounts.items():
            if key not in mine:
                self._gone.append(key)
                continue
            share = mine[key]
            share.meter.limit += amount
            share.anew = True
            self._live[share.meter] = share

    def _mine(self) -> dict[Key, Share]:
        return {keys.key_of(meter): share for meter, share in self._shares.items()}

    # -- trips

    def _want(self, why: NoRoom) -> list[Share]:
        """All that the call needs, so that none of it is handed back while the rest is asked for."""
        if (asked := why.asked) is None:
            return []
        if any(asked.least.of(meter) > meter.rule.value for meter in asked.room):
            return []  # it can never fit
        found = []
        for meter in asked.room:
            share, wish = self._shares.get(meter), asked.need.of(meter)
            if share is not None and wish:
                share.ask(min(wish, asked.least.of(meter)), wish)
                self._live[meter] = share
                found.append(share)
        return found

    def _stir(self) -> None:
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_future()
            self._asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody need hear it
        self._news.set()

    async def _tell(self) -> Lacking:
        """Until the next trip is back, and what it did not bring."""
        if self._closed:
            raise _shutting_down()
        self._stir()
        assert self._asking is not None
        return await asyncio.shield(self._asking)

    async def _run(self) -> None:
        while True:
            if self._live:
                with suppress(TimeoutError):  # time to look at what lies idle
                    async with asyncio.timeout(LOOK):
                        await self._news.wait()
            else:
                await self._news.wait()
            if self._asking is None and self._news.is_set():
                await asyncio.sleep(GATHER)
            self._news.clear()
            await self._go()

    async def _go(self) -> None:
        self._under_way = asked = self._asking
        self._asking = None
        lines = self._lines()
        parks, self._parks = self._parks, []
        claims, self._claims = self._claims, []
        releases, self._releases = self._releases, []
        gone, self._gone = self._gone, []
        moved, self._moved = self._moved, False
        said = [line for _, line in lines] + [Line(key, 0, 0) for key in gone]
        failed: BaseException | None = None
        lacking: Lacking = {}
        if said or parks or claims or releases or moved:
            try:
                reply = await self._store.trade(Trip(self.holder, said, parks, claims, releases))
                lacking = self._hear(lines, reply)
            except Moved:
                self._repeat(lines, parks, claims, releases, asked)
                return
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever it was, those who ask hear it, and the next trip says it all again
                failed = error
                self._parks[:0], self._releases[:0], self._gone[:0] = parks, releases, gone
                for share, _ in lines:
                    share.anew = True
                if moved:
                    self._moved = True
                    self._news.set()
                if not isinstance(error, TerraceError):
                    log.exception("the shares of limits could not be told")
                await asyncio.sleep(PAUSE)
        if asked is not None and not asked.done():
            if failed is None:
                asked.set_result(lacking)
            else:
                asked.set_exception(failed)
        self._freed()
        await asyncio.sleep(0)  # who stands in line looks before any of it is handed back

    def _repeat(
        self,
        lines: Sequence[tuple[Share, Line]],
        parks: list[Park],
        claims: list[str],
        releases: list[str],
        asked: "asyncio.Future[Lacking] | None",
    ) -> None:
        """Say all of it again, at the place where all meet now; who asked waits on."""
        for share, line in lines:
            share.ask_again(line)
        self._parks[:0], self._claims[:0], self._releases[:0] = parks, claims, releases
        self.again()
        if self._asking is None:
            self._asking = asked
        elif asked is not None:
            later, first = self._asking, asked
            later.add_done_callback(lambda done: _follow(done, first))
        self._news.set()

    def _lines(self) -> list[tuple[Share, Line]]:
        now, ticks, lines = self._clock(), asyncio.get_running_loop().time(), []
        for meter, share in list(self._live.items()):
            if (line := share.line(now, ticks)) is not None:
                lines.append((share, line))
            elif share.at_rest:
                del self._live[meter]
        return lines

    def _hear(self, lines: Sequence[tuple[Share, Line]], reply: Reply) -> Lacking:
        lacking: Lacking = {}
        for share, line in lines:
            found = reply.found.get(line.key)
            if found is not None and not share.heard(line, found):
                lacking[share] = share.soon
        for job_id, amounts in reply.claimed.items():
            self._have(amounts)
            if job_id in self._claimed:
                self._claimed[job_id] = amounts
        return lacking


def _shutting_down() -> Unavailable:
    return Unavailable("The server is shutting down. Try again in a moment.", code="shutting_down")


def _follow(done: "asyncio.Future[Lacking]", other: "asyncio.Future[Lacking]") -> None:
    if other.done():
        return
    if done.cancelled() or (error := done.exception()) is None:
        other.set_result(done.result())
    else:
        other.set_exception(error)
