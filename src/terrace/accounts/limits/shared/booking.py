"""What is booked leaves the shares of whoever made the calls, in the transaction that books it."""

from collections.abc import Callable

from sqlmodel import Session

from terrace.accounts.limits.meters import MINUTE
from terrace.accounts.limits.shared import database, keys, members
from terrace.accounts.limits.shared.base import Key
from terrace.telemetry.ledger import Days


class Booking:
    """`terrace.telemetry.ledger.Follower`. Of a process that counts alone only what dead ones left is minded."""

    def __init__(self, moved: Callable[[Days, dict[Key, int]], None]) -> None:
        """`moved` hears what left our own share, and what is booked in all."""
        self.shared = False  # others count too
        self._moved = moved
        self._latest: dict[int, dict[Key, int]] = {}  # by journal: a dead one's is booked while our own is

    def before(self, session: Session, days: Days) -> None:
        database.lock(session, {tenant for tenant, *_ in days}, shared=True)

    def booking(self, session: Session, journal: int, days: Days) -> None:
        self._latest[journal] = database.add(session, keys.amounts(days), journal)

    def buried(self, session: Session, journal: int) -> None:
        database.bury(session, journal, booked=True, until=database.moment(session) + MINUTE)
        members.forget(session, journal)
        self._latest.pop(journal, None)

    def booked(self, journal: int, days: Days) -> None:
        latest = self._latest.pop(journal, {})
        if self.shared:
            self._moved(days, latest)
