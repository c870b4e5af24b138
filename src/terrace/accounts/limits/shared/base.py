"""Where processes that share limits meet: each has a share of a limit and spends it alone.

What is used of a limit is what the ledger has booked and what everybody holds. A process says what it holds in whole,
never by how much it changed: an answer that got lost is put right by the next question.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

Key = tuple[str, str]  # a tenant, and the limit in it with its day or month: `user:usr_ada|tokens_per_day|2026-11-21`


@dataclass(frozen=True, slots=True)
class Line:
    """What a process says of one limit, and asks for. Whole units, money in picodollars."""

    key: Key
    value: int  # the limit itself
    held: int  # all that this process has of it from now on, used or not
    idle: int = 0  # of that, what it has no use for at the moment
    least: int = 0  # it needs so much more to let one call pass,
    wish: int = 0  # so much for all that wait,
    slack: int = 0  # and would like so much beside, not to ask each time
    booked: int = -1  # what was booked when it looked last; only ever more. -1: it has not looked


@dataclass(frozen=True, slots=True)
class Park:
    """Room kept for a job, whichever process runs it; given back after so many seconds."""

    job: str
    amounts: dict[Key, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Trip:
    """All that a process has to say and to ask at a time."""

    holder: int
    lines: Sequence[Line] = ()
    parks: Sequence[Park] = ()
    claims: Sequence[str] = ()  # jobs whose calls begin here
    releases: Sequence[str] = ()  # jobs that are over


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of one limit."""

    granted: int = 0
    booked: int = 0
    others: int = 0  # what others hold
    idle: int = 0  # of which they have no use
    wanted: bool = False  # somebody needs what others have idle


@dataclass(frozen=True, slots=True)
class Reply:
    found: dict[Key, Found] = field(default_factory=dict)
    claimed: dict[str, dict[Key, int]] = field(default_factory=dict)


class Moved(Exception):
    """All meet elsewhere now, and everything has to be said again there: the next trip holds all lines."""


class Store(Protocol):
    """Redis or the database."""

    async def trade(self, trip: Trip) -> Reply:
        """All of it or nothing. Grants never take what is held and booked beyond a limit. Raises Unavailable, Moved."""

    async def leave(self, holder: int, lines: Sequence[Line], minutes: Sequence[Line]) -> None:
        """Hand everything back but `lines`, which are to be booked yet, and what was used in the last minute."""


def share_of(line: Line, booked: int, others: int, *, wanted: bool) -> int:
    """How much of a limit a process gets: what it wishes with some slack, or all that is left, or nothing when that
    would not do. Near the limit there is no slack, and none while somebody wants what others have idle."""
    free = line.value - booked - others - line.held
    if free < max(line.least, 1):
        return 0
    if free < line.wish:
        return free
    return line.wish if wanted else line.wish + min(line.slack, (free - line.wish) // 8)
