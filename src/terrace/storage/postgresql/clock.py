"""One clock for all who share a database: PostgreSQL's own. Machines whose clocks are off, or jump, agree all the same
on which lease has ended and what is due."""

import logging
import time
from typing import Any

from terrace.types import agree, agreed

log = logging.getLogger(__name__)

TELL = "SELECT extract(epoch FROM clock_timestamp())::float8"
LEAVE_SECONDS = 1.0  # by so little a clock may be off: what is compared over processes is longer
LOOK_SECONDS = 60.0  # between two looks while our own clock runs on evenly


class Clock:
    """Looks at the database's time at the beginning of a transaction: at the first, once a minute, and whenever this
    machine's clock was set. Between two looks time goes on evenly, however ours is set. For any thread."""

    def __init__(self) -> None:
        self._looked = 0.0  # monotonic
        self._offset = float("inf")  # of our clock from the monotonic one, when we looked
        self._off = 0.0  # as it was told last: by how much our clock is ahead of the database's

    def begin(self, driver: Any, statements: str) -> None:
        """Execute them, and look if it is time to."""
        ticks = time.monotonic()
        offset = time.time() - ticks
        if abs(offset - self._offset) < LEAVE_SECONDS and ticks < self._looked + LOOK_SECONDS:
            driver.execute(statements)
            return
        before = time.monotonic()
        cursor = driver.execute(f"{statements}; {TELL}")
        after = time.monotonic()
        while cursor.nextset():
            pass
        self._agree(cursor.fetchone()[0] - (before + after) / 2, offset, LEAVE_SECONDS + after - before)
        self._looked, self._offset = ticks, offset

    def _agree(self, theirs: float, ours: float, leave: float) -> None:
        """The clocks of the database and of this machine, beyond the monotonic one."""
        off = ours - theirs if abs(ours - theirs) > leave else 0.0
        known = agreed()
        if known is None or abs(theirs - known) > leave:
            agree(theirs if off else ours)
        if abs(off - self._off) > leave:
            self._off = off
            if off:
                log.warning("this machine's clock is %.0f s off the database's, whose time is taken", off)
            else:
                log.info("this machine's clock and the database's agree again")
