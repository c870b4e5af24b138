"""How much a process draws of a limit, and how often it asks: one share, with a clock that is set."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.accounts.limits_house import ACME, NOON

from terrace.accounts.limits.meters import Meter, Rule, Total, Window
from terrace.accounts.limits.refusals import NoRoom
from terrace.accounts.limits.room import Asked, Need, Refusal, Room
from terrace.accounts.limits.shared.base import Found, Line, Reply, Trip, share_of
from terrace.accounts.limits.shared.share import Share
from terrace.accounts.limits.shared.sharing import LOOK, Sharing
from terrace.telemetry.ledger import Days

TOKENS = 1000  # of a call, which comes to a tenth of that
TICK = 0.004


@dataclass
class House:
    """A process that makes one call after the other against a limit of which others hold some."""

    value: int
    others: int = 0
    idle: int = 0  # of what the others hold
    wanted: bool = False
    trips: list[float] = field(default_factory=list)
    waited: int = 0  # calls that were not let pass at once
    refused: int = 0
    at: float = 1000.0

    def __post_init__(self) -> None:
        rule = Rule(ACME, "tokens_per_day", self.value, "terminal", NOON)
        self.meter = Total(rule, NOON)
        self.meter.limit = 0
        self.share = Share(self.meter)
        self.looked = self.at

    def call(self) -> None:
        if not self._passes():
            self.waited += 1
            self.share.ask(TOKENS, TOKENS)
            self.trip()
        if not self._passes():
            self.refused += 1
            return
        self.meter.used += TOKENS // 10

    def rest(self, seconds: float) -> None:
        """The time goes on; now and then it is looked at what lies idle."""
        until = self.at + seconds
        while self.at < until:
            self.at += TICK
            if self.at >= self.looked + LOOK:
                self.trip()

    def trip(self) -> None:
        self.looked = self.at
        line = self.share.line(NOON, self.at)
        if line is not None:
            self.trips.append(self.at)
            granted = share_of(line, 0, self.others, wanted=self.wanted)
            self.share.heard(line, Found(granted, 0, self.others, self.idle, self.wanted))
        assert self.meter.limit + self.others <= self.value, "more than there is"

    def _passes(self) -> bool:
        return self.meter.used + TOKENS <= self.meter.limit


def test_the_others_are_asked_once_or_twice_a_second_however_many_calls_there_are() -> None:
    house = House(10**9)
    for _ in range(250 * 10):
        house.call()
        house.rest(TICK)
    begun = len(house.trips)
    assert begun <= 20
    assert house.waited <= 3, "it draws before all is spent"
    for _ in range(250 * 10):
        house.call()
        house.rest(TICK)
    assert len(house.trips) - begun <= 18
    assert house.meter.limit - house.meter.used <= 250 * 5 * TOKENS // 10, "some seconds ahead, and no more"


def test_what_is_left_over_is_handed_back_when_nobody_calls() -> None:
    house = House(10**9)
    for _ in range(500):
        house.call()
        house.rest(TICK)
    assert house.meter.limit > house.meter.used
    house.rest(3.0)
    assert house.meter.limit == house.meter.used == 500 * TOKENS // 10
    spoken = len(house.trips)
    house.rest(60.0)
    assert len(house.trips) == spoken, "there is nothing more to say"


def test_a_small_budget_is_spent_to_its_end() -> None:
    house = House(20 * TOKENS, others=3 * TOKENS)
    for _ in range(400):
        house.call()
    assert house.meter.used == 16 * TOKENS + TOKENS // 10  # the last that fits leaves less than another one needs
    assert house.refused == 400 - 161


def test_what_others_want_is_handed_back_and_no_slack_is_drawn() -> None:
    house = House(10**6)
    house.call()
    assert house.meter.limit > house.meter.used
    house.wanted = True
    house.rest(2.0)
    assert house.meter.limit == house.meter.used
    house.call()
    assert house.meter.limit == house.meter.used + TOKENS * 9 // 10, "as much as the call asked for"


def test_what_was_held_beyond_the_share_is_said_at_once() -> None:
    house = House(10**6)
    house.call()
    house.rest(LOOK)
    spoken = len(house.trips)
    house.meter.used = house.meter.limit + 500  # a call came to more than was reserved for it
    house.rest(LOOK + TICK)
    assert len(house.trips) == spoken + 1
    assert house.share.told is not None
    assert house.share.told[1] == house.meter.limit >= house.meter.used


class Slow:
    """A meeting place that answers when it is told to. Nobody else is there."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answers = asyncio.Semaphore(0)

    async def trade(self, trip: Trip) -> Reply:
        self.asked.set()
        await self.answers.acquire()
        return Reply({line.key: Found(share_of(line, 0, 0, wanted=False)) for line in trip.lines})

    async def leave(self, holder: int, lines: Sequence[Line], minutes: Sequence[Line]) -> None: ...


class Blank:
    """A ledger without a call."""

    id = 1

    async def quietly(self, work: Callable[[Days], None]) -> None:
        work({})


async def test_what_came_for_a_call_is_not_handed_back_before_the_call_has_looked() -> None:
    place = Slow()
    sharing = Sharing(place, Blank(), lambda: NOON, lambda: None)
    meter = Window(Rule(ACME, "tokens_per_minute", 1000, "terminal", NOON))
    room, whole, least = Room([meter]), Need(tokens=2000), Need(tokens=1000)
    why = NoRoom([Refusal(meter, 2000, None)], asked=Asked(room, whole, least))
    meters: list[Meter] = [meter]

    async def call() -> int:
        """What there is for a call when it looks again."""
        assert not await sharing.draw(why), "for a whole answer there is no room"
        return meter.limit - meter.used

    sharing.start()
    try:
        await sharing.join(lambda: meters)
        calling = asyncio.create_task(call())
        await place.asked.wait()
        another = asyncio.create_task(sharing.look(meters))  # the next trip, which begins as soon as this one is back
        await asyncio.sleep(0)
        place.answers.release()
        assert await calling == 1000
        place.answers.release()
        await another
    finally:
        await sharing.close()
