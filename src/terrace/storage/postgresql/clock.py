"""One clock for all who share a database: PostgreSQL's own. Machines whose clocks are off, or jump, agree all the same
on which lease has ended and what is due."""

import logging
import time
from typing import Any

from terrace.types import clock_ahead, set_clock

log = logging.getLogger(__name__)

TELL = "SELECT extract(epoch FROM clock_timestamp())::float8"
LEAVE_SECONDS = 1.0  # by so little a clock may be off: what is compared over processes is longer
LOOK_SECONDS = 60.0  # between two looks while our own clock runs on evenly


class Clock:
    """Looks at the database's time at the beginning of a transaction: at the first, once a minute, and whenever this
    machine's clock was set. For any thread."""

    def __init__(self) -> None:
        self._looked = 0.0  # monotonic
        self._offset = float("inf")  # of our clock from the monotonic one, when we looked

    def begin(self, driver: Any, statements: str) -> None:
        """Execute them, and look if it is time to."""
        ticks = time.monotonic()
        offset = time.time() - ticks
        if abs(offset - self._offset) < LEAVE_SECONDS and ticks < self._looked + LOOK_SECONDS:
            driver.execute(statements)
            return
        before = time.time()
        cursor = driver.execute(f"{statements}; {TELL}")
        after = time.time()
        while cursor.nextset():
            pass
        _agree(cursor.fetchone()[0] - (before + after) / 2, after - before)
        self._looked, self._offset = ticks, offset


def _agree(ahead: float, uncertain: float) -> None:
    """The database's clock is so far ahead of ours."""
    if abs(ahead - clock_ahead()) <= LEAVE_SECONDS + abs(uncertain):
        return
    off = abs(ahead) > LEAVE_SECONDS
    set_clock(ahead if off else 0.0)
    if off:
        log.warning("this machine's clock is %.0f s off the database's, whose time is taken", -ahead)
    else:
        log.info("this machine's clock and the database's agree again")
