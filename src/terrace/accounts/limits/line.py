"""Those who wait for room: in the order they came within a tenant, one tenant after the other.

Limits belong to tenants, so nobody waits for what another tenant holds; what tenants share is the number of places in
this line. When it is full, the tenant with the most waiting makes way.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from terrace.accounts.limits.meters import Meter
from terrace.accounts.limits.refusals import NoRoom
from terrace.errors import TerraceError

LOOK_SECONDS = 0.25  # the longest between two looks, whatever the clock does


class Waiter:
    __slots__ = ("_until", "attempt", "blocked", "future", "job", "tenant", "why")

    def __init__(self, tenant: str, attempt: Callable[[], Any], why: NoRoom, patience: float, *, job: bool) -> None:
        loop = asyncio.get_running_loop()
        self.tenant = tenant
        self.attempt = attempt
        self.job = job
        self.future: asyncio.Future[Any] = loop.create_future()
        self._until = loop.time() + patience
        self.stuck(why)

    def hopeless(self, why: NoRoom) -> bool:
        """Whether there will be no room while this one waits."""
        return why.hopeless(self._until - asyncio.get_running_loop().time())

    def stuck(self, why: NoRoom) -> None:
        self.why = why
        self.blocked = frozenset(id(each.meter) for each in why.refusals)


class Line:
    """`places` may wait; jobs, which are bounded elsewhere, wait beside them."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._lines: OrderedDict[str, list[Waiter]] = OrderedDict()
        self._counted = 0  # who takes a place
        self._timer: asyncio.TimerHandle | None = None
        self._woken: asyncio.Handle | None = None
        self._closed: TerraceError | None = None  # for whoever comes

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return bool(self._lines)

    def ahead(self, tenant: str, meters: Iterable[Meter]) -> Waiter | None:
        """The first who waits for room at one of these: whoever comes now comes after."""
        wanted = {id(meter) for meter in meters}
        for waiter in self._lines.get(tenant, ()):
            if waiter.blocked & wanted:
                return waiter
        return None

    async def wait(
        self,
        tenant: str,
        attempt: Callable[[], Any],
        why: NoRoom,
        patience: float,
        undo: Callable[[Any], object],
        *,
        job: bool = False,
    ) -> Any:
        """What `attempt` returns once it is this one's turn and there is room. Raises what it raises, Limited when
        the patience ends or the line is full. `undo` takes back a result that nobody waits for any more."""
        if self._closed is not None:
            raise self._closed
        if not job and self._counted >= self._places and not self._make_way(tenant):
            raise why.told()
        waiter = Waiter(tenant, attempt, why, patience, job=job)
        self._lines.setdefault(tenant, []).append(waiter)
        self._counted += not job
        self._look_in(why.wait)
        future = waiter.future
        try:
            async with asyncio.timeout(patience):
                return await future
        except TimeoutError:
            if not future.cancelled():
                return future.result()  # it came in the last moment
            self._give_up(waiter)
            raise waiter.why.told() from None
        except asyncio.CancelledError:
            if future.cancelled() or not future.done():
                self._give_up(waiter)
            elif future.exception() is None:
                undo(future.result())
            raise

    def _give_up(self, waiter: Waiter) -> None:
        self._leave(waiter)
        self.wake()  # it may have stood in others' way

    def wake(self) -> None:
        """Room may have come free: look, once this turn of the event loop."""
        if self._lines and self._woken is None:
            self._woken = asyncio.get_running_loop().call_soon(self._look)

    def close(self, error: TerraceError) -> None:
        """Send everybody away, whoever comes later too."""
        self._closed = error
        for handle in (self._timer, self._woken):
            if handle is not None:
                handle.cancel()
        self._timer = self._woken = None
        for waiter in [each for line in self._lines.values() for each in line]:
            self._leave(waiter)
            _fail(waiter, error)

    def _look(self) -> None:
        """Serve whom there is room for, nobody before those who wait for the same."""
        self._woken = None
        soonest: float | None = None
        for tenant in list(self._lines):
            blocked: set[int] = set()
            for waiter in list(self._lines.get(tenant, ())):
                if waiter.future.done():  # cancelled, and about to leave
                    continue
                if waiter.blocked & blocked:
                    blocked |= waiter.blocked
                    continue
                self._try(waiter)
                if not waiter.future.done():
                    blocked |= waiter.blocked
                    wait = waiter.why.wait or 0.0
                    soonest = wait if soonest is None else min(soonest, wait)
            if tenant in self._lines:
                self._lines.move_to_end(tenant)
        if self._lines:
            self._look_in(soonest)

    def _try(self, waiter: Waiter) -> None:
        try:
            result = waiter.attempt()
        except NoRoom as why:
            if not waiter.hopeless(why):
                waiter.stuck(why)
                return
            _fail(waiter, why.told())
        except TerraceError as error:
            _fail(waiter, error)
        else:
            waiter.future.set_result(result)
        self._leave(waiter)

    def _look_in(self, seconds: float | None) -> None:
        """Unless somebody looks sooner: those who keep coming must not put it off."""
        loop = asyncio.get_running_loop()
        when = loop.time() + min(seconds or LOOK_SECONDS, LOOK_SECONDS)
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._timed)

    def _timed(self) -> None:
        self._timer = None
        if self._lines:
            self._look()

    def _make_way(self, tenant: str) -> bool:
        """Send away the last of the tenant with the most in line, if it has more than this one would have."""
        counted = {each: [waiter for waiter in line if not waiter.job] for each, line in self._lines.items()}
        longest = max(counted.values(), key=len, default=[])
        if len(longest) <= len(counted.get(tenant, ())) + 1:
            return False
        last = longest[-1]
        self._leave(last)
        _fail(last, last.why.told())
        return True

    def _leave(self, waiter: Waiter) -> None:
        line = self._lines.get(waiter.tenant, [])
        if waiter in line:
            line.remove(waiter)
            self._counted -= not waiter.job
            if not line:
                del self._lines[waiter.tenant]


def _fail(waiter: Waiter, error: TerraceError) -> None:
    if not waiter.future.done():
        waiter.future.set_exception(error)
