"""Limits of one process: counted in memory, rebuilt from the ledger at the start.

Nothing here awaits between looking and taking, so on one event loop every check with its reservation is atomic.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from sqlmodel import Session

from terrace import settings
from terrace.accounts.limits import storage, store
from terrace.accounts.limits.base import Limit, LimitName, Subject
from terrace.accounts.limits.board import Board
from terrace.accounts.limits.estimates import Estimates, PriceList, dearest
from terrace.accounts.limits.holds import Holds
from terrace.accounts.limits.line import Line
from terrace.accounts.limits.meters import Gauge, Meter
from terrace.accounts.limits.refusals import NoRoom, amount, price_unknown
from terrace.accounts.limits.reservations import Kept, Open, Reservation
from terrace.accounts.limits.room import SOON, Asked, Need, Refusal, Room
from terrace.accounts.limits.seeding import Ledger
from terrace.errors import Denied, Unavailable
from terrace.storage import Database, after_commit
from terrace.telemetry.calls import Call, Demand
from terrace.telemetry.prices import Price
from terrace.types import Scope, now


class Books(Ledger, Protocol):
    """As much of `terrace.telemetry.ledger.Ledger` as this needs."""

    def begin(
        self,
        scope: Scope,
        demand: Demand,
        reserved_input: int,
        reserved_output: int,
        price: Price | None,
        reserved_cost: int | None,
    ) -> int: ...
    def end(self, slot: int, call: Call, cost: int | None, price_dated: str | None) -> None: ...


class MemoryLimits:
    """`accounts.limits.base.Limits` and `telemetry.calls.Meter`. For the event loop's thread, save `admit`.

    `record` hears of every call that ended; `stored` counts what a subject has stored.
    """

    def __init__(
        self,
        database: Database,
        ledger: Books,
        prices: PriceList,
        record: Callable[[Call], None],
        options: settings.Limits,
        clock: Callable[[], float] = now,
        *,
        stored: store.Stored,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._prices = prices
        self._record = record
        self._options = options
        self._clock = clock
        self._stored = stored
        self._freed: Callable[[Room], None] | None = None  # hears that a call of this room has ended
        self._open: set[Open] = set()
        self._estimates = Estimates(prices, options.answer_tokens)
        self._factors = self._estimates.factors
        self._line = Line(options.waiting)
        self._holds = Holds(clock, self._line.wake)
        self._board = Board(database, ledger, clock, self._under_way, self._line.wake)
        self._rooms = self._board.rooms

    async def start(self) -> None:
        """Know all limits and what is used of them; then hear what other processes change."""
        await self._board.start()

    async def close(self) -> None:
        """Whoever waits for room is sent away. What is under way may still end."""
        await self._board.close()
        self._line.close(Unavailable("The server is shutting down. Try again in a moment.", code="shutting_down"))

    def _under_way(self) -> Iterator[Reservation]:
        yield from self._open
        yield from self._holds

    # -- requests at a door

    def count(self, scope: Scope) -> None:
        try:
            self._count(scope)
        except NoRoom as why:
            raise why.told() from None

    async def count_waiting(self, scope: Scope, patience: float) -> None:
        def attempt(*, in_turn: bool = False, whole: bool = False) -> None:
            self._count(scope, in_turn=in_turn)

        await self._patiently(scope, attempt, patience, lambda _: None)

    def _count(self, scope: Scope, *, in_turn: bool = False) -> None:
        room = self._board.room(scope)
        if not room.requests:
            return
        if self._line and not in_turn:
            self._mind_the_line(scope, room.requests, 1)
        moment = self._clock()
        for window in room.requests:
            window.expire(moment)
        if any(window.used >= window.limit for window in room.requests):
            need, counting = Need(requests=1), Room(room.requests)
            raise NoRoom(counting.refusals(moment, need), asked=Asked(counting, need, need))
        for window in room.requests:
            window.take(1, moment)

    # -- model calls

    shared = False
    """Whether others count against the same limits, so that doors have to wait for what they ask."""

    def begin(self, scope: Scope, demand: Demand) -> Open:
        try:
            return self._begin(scope, demand)
        except NoRoom as why:
            raise why.told() from None

    async def wait(self, scope: Scope, demand: Demand, patience: float) -> Open:
        def attempt(*, in_turn: bool = False, whole: bool = False) -> Open:
            return self._begin(scope, demand, in_turn=in_turn, whole=whole)

        def undo(call: Open) -> None:
            call.end(
                Call(demand.provider, demand.model, demand.operation, "cancelled", "", 0.0, None, None, scope.tenant)
            )

        opened: Open = await self._patiently(scope, attempt, patience, undo)
        return opened

    async def _patiently(
        self, scope: Scope, attempt: Callable[..., Any], patience: float, undo: Callable[[Any], None]
    ) -> Any:
        """At once if there is room and nobody ahead, else in turn."""
        if scope.job is None:
            patience = min(patience, self._options.wait)
        try:
            return attempt()
        except NoRoom as refused:
            if patience <= 0 or refused.hopeless(patience):
                raise refused.told() from None
            why = refused
        return await self._line.wait(
            scope.tenant, lambda: attempt(in_turn=True), why, patience, undo, job=scope.job is not None
        )

    def _begin(self, scope: Scope, demand: Demand, *, in_turn: bool = False, whole: bool = False) -> Open:
        """`whole`: with no shorter answer than was asked for."""
        if scope.tenant in self._board.closed:  # nobody is let in; what was queued before goes on for nobody either
            raise Denied("This tenant was disabled. Ask whoever runs this server.", code="tenant_disabled")
        room = self._rooms.get((scope.tenant, scope.user, scope.key)) or self._board.room(scope)
        if scope.job is not None and (kept := self._holds.of(scope.job, demand)) is not None:
            return self._take_over(kept, scope, demand, room, whole=whole)
        if self._line and not in_turn:
            self._mind_the_line(scope, room.counting(demand), demand.input_tokens)
        return self._let_pass(scope, demand, room, whole=whole)

    def _let_pass(self, scope: Scope, demand: Demand, room: Room, *, whole: bool = False) -> Open:
        price = self._prices.of(demand.kind, demand.provider, demand.model)
        requests = demand.requests
        inwards, bound = demand.input_tokens, demand.output_tokens
        calls = 1
        if demand.operation != "chat":
            calls = 1 if requests else 0  # an embedding for a search or an ingestion is part of other work
            answer = 0
        elif bound is None:
            answer = self._options.answer_tokens
            if room.bounded:
                bound = answer
        else:
            answer = bound
        outwards = answer
        if self._factors:
            inwards, outwards = self._factors.applied(demand, outwards)
        tokens = inwards + outwards
        money = 0 if price is None else dearest(price, inwards, outwards)
        moment = self._clock()
        if not room.limited:
            slot = self._ledger.begin(scope, demand, inwards, outwards, price, None if price is None else money)
            call = Open(self, scope, demand, room, moment, price, tokens, money, calls, inwards, bound, answer, slot)
        else:
            if price is None and room.money:
                raise price_unknown(room.money[0].rule, demand)
            if not room.fits(moment, requests, tokens, money, calls):
                self._holds.lapse()
                need, bound = self._estimates.fitting(room, demand, price, moment, requests, calls, whole=whole)
                tokens, money = need.tokens, need.cost
                answer = bound or answer
            slot = self._ledger.begin(scope, demand, inwards, tokens - inwards, price, None if price is None else money)
            call = Open(self, scope, demand, room, moment, price, tokens, money, calls, inwards, bound, answer, slot)
            call.buckets = room.take(moment, requests, tokens, money, calls)
        self._open.add(call)
        return call

    def _take_over(self, kept: Kept, scope: Scope, demand: Demand, room: Room, *, whole: bool) -> Open:
        """A job's call gets the room that was kept for it, or leaves it kept."""
        self._holds.open(kept)
        try:
            call = self._let_pass(scope, demand, room, whole=whole)
        except BaseException:
            self._holds.keep_on(kept)
            raise
        self._holds.gone(kept)
        return call

    def ended(self, call: Open, told: Call) -> None:
        """What `Open.end` does."""
        usage, price = told.usage, call.price
        tokens, money = self._estimates.came_to(call, usage)
        if call.room.limited:
            call.settle(self._clock(), tokens, money)
        self._open.discard(call)
        if price is not None:
            self._ledger.end(call.slot, told, money, price.dated)
        else:
            self._ledger.end(call.slot, told, None if usage is not None else 0, None)
        self._record(told)
        if self._line:
            self._line.wake()
        if self._freed is not None:
            self._freed(call.room)

    def largest(self, demand: Demand) -> int | None:
        """The most a call can cost, in picodollars, as it is reserved for; None when nobody knows the price."""
        return self._estimates.largest(demand)

    # -- holds

    def hold(self, scope: Scope, demand: Demand) -> Kept:
        try:
            return self._hold(scope, demand)
        except NoRoom as why:
            raise why.told() from None

    async def hold_waiting(self, scope: Scope, demand: Demand) -> Kept:
        return self.hold(scope, demand)

    def _hold(self, scope: Scope, demand: Demand, *, whole: bool = False) -> Kept:
        room = self._board.room(scope)
        moment = self._clock()
        need = Need()
        if room.bounded:
            price = self._prices.of(demand.kind, demand.provider, demand.model)
            if price is None and room.money:
                raise price_unknown(room.money[0].rule, demand)
            if self._line:
                self._mind_the_line(scope, [each for each in room if not isinstance(each, Gauge)], demand.input_tokens)
            self._holds.lapse()
            need, _ = self._estimates.fitting(room, demand, price, moment, 0, 0, whole=whole)
        kept = Kept(scope, room, moment, need.tokens, need.cost, demand, self._holds)
        kept.buckets = room.take(moment, 0, need.tokens, need.cost, 0)
        self._holds.add(kept)
        return kept

    def release(self, job_id: str) -> None:
        self._holds.end(job_id)

    # -- what is stored

    def admit(self, session: Session, scope: Scope, *, documents: int, bytes: int) -> None:
        storage.admit(session, scope, self._stored, documents=documents, bytes=bytes)

    # -- showing and changing

    async def show(self, subject: Subject) -> list[Limit]:
        rules = self._board.rules(subject)
        stored = {"documents": 0, "stored_bytes": 0}
        if any(rule.name in stored for rule, _ in rules):
            stored["documents"], stored["stored_bytes"] = await self._database.read(self._stored, subject)
        self._holds.lapse()
        moment = self._clock()
        shown = []
        for rule, meter in rules:
            used, resets_in = (stored.get(rule.name, 0), None) if meter is None else meter.state(moment)
            used += 0 if meter is None else meter.elsewhere
            value = amount(rule.name, rule.value)
            shown.append(Limit(rule.name, value, amount(rule.name, used), resets_in, rule.set_by, rule.set_at))
        return shown

    async def subjects(self, tenant: str) -> list[Subject]:
        return self._board.subjects(tenant)

    async def change(
        self,
        subject: Subject,
        values: Mapping[LimitName, float | None],
        by: str,
        also: Callable[[Session], None] | None = None,
    ) -> list[Limit]:
        kept = store.checked(values)

        def write(session: Session) -> None:
            store.put(session, subject, kept, by)
            if also is not None:
                also(session)

        await self._database.write(write)
        await self.refresh()
        return await self.show(subject)

    async def refresh(self) -> None:
        """After limits were written otherwise, such as with the user or tenant they belong to."""
        await self._board.refresh()

    def admitted(self) -> None:
        """Tenants may have been disabled, or let in again."""
        self._board.stir()

    def left(self, session: Session, _whose: object) -> None:
        """In the transaction that erases a user or a tenant, and their limits."""
        after_commit(session, self._board.stir)

    def _mind_the_line(self, scope: Scope, meters: Sequence[Meter], needed: int) -> None:
        """Whoever waits for the same room comes first. Raises NoRoom."""
        if (ahead := self._line.ahead(scope.tenant, meters)) is not None:
            wait = max(SOON, ahead.why.wait or 0.0)
            raise NoRoom([Refusal(ahead.why.worst.meter, needed, wait)], queued=True)
