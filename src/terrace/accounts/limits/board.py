"""Which limits there are, and the meters that count for each caller."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from terrace.accounts.limits import store
from terrace.accounts.limits.base import LimitName, Subject
from terrace.accounts.limits.meters import Meter, Rule, meter
from terrace.accounts.limits.reservations import Reservation
from terrace.accounts.limits.room import Room
from terrace.accounts.limits.seeding import Ledger, seed
from terrace.errors import TerraceError
from terrace.storage import Database
from terrace.types import Scope

if TYPE_CHECKING:
    from terrace.accounts.limits.shared.sharing import Sharing

log = logging.getLogger(__name__)

MAX_ROOMS = 50_000  # callers remembered
WATCH_BEGINS = 1.0  # seconds until the database's watch surely looks: what was written before woke nobody
REFRESH_SECONDS = 1.0  # what another process changed is looked for this often at most

UNLIMITED = Room()


class Board:
    """`under_way` tells what is reserved now: it counts towards a limit that is set meanwhile."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        clock: Callable[[], float],
        under_way: Callable[[], Iterable[Reservation]],
        changed: Callable[[], None],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._under_way = under_way
        self._changed = changed
        self._rules: dict[Subject, dict[LimitName, Rule]] = {}
        self._meters: dict[Subject, dict[LimitName, Meter]] = {}
        self._fingerprint: tuple[object, ...] = ()
        self._applying = asyncio.Lock()
        self._others_wrote = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._unwatch: Callable[[], None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self.sharing: Sharing | None = None
        """Set where other processes count against the same limits."""
        self.rooms: dict[tuple[str, str | None, str | None], Room] = {}
        """Of (tenant, user, key); who is not in it: `room`."""
        self.closed: frozenset[str] = frozenset()
        """Tenants that are disabled."""

    async def start(self) -> None:
        await self.refresh()
        self._unwatch = self._database.watch(self.stir)
        self._later = asyncio.get_running_loop().call_later(WATCH_BEGINS, self.stir)
        self._watching = asyncio.create_task(self._watch(), name="limits that others set")

    async def close(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if self._later is not None:
            self._later.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None

    def stir(self) -> None:
        """Limits may have been written by others than us, or a tenant was disabled: look soon."""
        self._others_wrote.set()

    def room(self, scope: Scope) -> Room:
        """The meters that count for a caller: the key's first, the tenant's last."""
        key = (scope.tenant, scope.user, scope.key)
        room = self.rooms.get(key)
        if room is None:
            found = [each for subject in store.subjects(scope)[::-1] for each in self._of(subject)]
            room = Room(found) if found else UNLIMITED
            if len(self.rooms) >= MAX_ROOMS:
                self.rooms.clear()
            self.rooms[key] = room
        return room

    def rules(self, subject: Subject) -> list[tuple[Rule, Meter | None]]:
        """In the order of the names; what is stored has no meter."""
        rules, meters = self._rules.get(subject, {}), self._meters.get(subject, {})
        return [(rules[name], meters.get(name)) for name in store.NAMES if name in rules]

    def subjects(self, tenant: str) -> list[Subject]:
        found = [subject for subject in self._rules if subject.tenant == tenant]
        return sorted(found, key=lambda each: (each.kind != "tenant", each.kind, each.id))

    async def refresh(self) -> None:
        """Take over the limits as they are kept now."""
        async with self._applying:
            rules, self._fingerprint, self.closed = await self._database.read(
                lambda session: (store.everything(session), store.fingerprint(session), store.closed(session))
            )
            await self._apply(rules)
        self._changed()

    async def _apply(self, rules: Sequence[Rule]) -> None:
        """Meters of limits that stay are kept with what they hold; new ones learn what is used already."""
        moment = self._clock()
        if (sharing := self.sharing) is not None:
            await sharing.join(lambda: self._take(rules, moment))
            return
        if fresh := self._install(rules, moment):
            self._join(fresh, moment)
            try:
                await seed(fresh, self._ledger, self._clock)
            except BaseException:
                self._forget(fresh)
                raise

    def _take(self, rules: Sequence[Rule], moment: float) -> list[Meter]:
        fresh = self._install(rules, moment)
        self._join(fresh, moment)
        return fresh

    def _install(self, rules: Sequence[Rule], moment: float) -> list[Meter]:
        """The new ones."""
        before, self._meters, self._rules = self._meters, {}, {}
        fresh: list[Meter] = []
        for rule in rules:
            self._rules.setdefault(rule.subject, {})[rule.name] = rule
            known = before.get(rule.subject, {}).pop(rule.name, None)
            found = known or meter(rule, moment)
            if found is None:
                continue
            found.rule = rule
            if self.sharing is None:
                found.limit = rule.value
            self._meters.setdefault(rule.subject, {})[rule.name] = found
            if known is None:
                fresh.append(found)
        self.rooms.clear()
        if self.sharing is not None:
            self.sharing.forget(each for gone in before.values() for each in gone.values())
        return fresh

    def meters(self) -> list[Meter]:
        return [each for meters in self._meters.values() for each in meters.values()]

    def _forget(self, fresh: Sequence[Meter]) -> None:
        """It could not be read what is used of these already: they are new again when the limits are looked at next."""
        for each in fresh:
            del self._meters[each.rule.subject][each.rule.name]
        self._fingerprint = ()
        self.rooms.clear()
        self.stir()

    def _join(self, fresh: Sequence[Meter], moment: float) -> None:
        whose: dict[Subject, list[Meter]] = {}
        for each in fresh:
            whose.setdefault(each.rule.subject, []).append(each)
        for reservation in self._under_way():
            for subject in store.subjects(reservation.scope):
                for each in whose.get(subject, ()):
                    reservation.join(each, moment)

    def _of(self, subject: Subject) -> Iterable[Meter]:
        return self._meters.get(subject, {}).values()

    async def _watch(self) -> None:
        while True:
            await self._others_wrote.wait()
            self._others_wrote.clear()
            try:
                if await self._database.read(store.fingerprint) != self._fingerprint:
                    await self.refresh()
            except TerraceError as error:
                log.warning("limits that another process set could not be read and are read later: %s", error)
                self._others_wrote.set()
            await asyncio.sleep(REFRESH_SECONDS)
