"""Works that lose races to others of their kind stand in line for a while: one after the other they all come through,
while side by side they would fail one another again and again."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from terrace.storage.postgresql import errors

CALM_SECONDS = 1.0  # after a race was lost; then they go side by side again


class Line:
    """Of one kind of work, in this process."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._until = 0.0

    def lost(self) -> None:
        self._until = time.monotonic() + CALM_SECONDS

    @contextmanager
    def turn(self, until: float) -> Iterator[None]:
        """At once, if nobody lost a race lately. Raises Unavailable when it has not come by `until`."""
        moment = time.monotonic()
        if moment > self._until:
            yield
            return
        if not self._turn.acquire(timeout=max(0.0, until - moment)):
            raise errors.busy()
        try:
            yield
        finally:
            self._turn.release()


class Lines:
    def __init__(self) -> None:
        self._lines: defaultdict[Any, Line] = defaultdict(Line)

    def of(self, work: Callable[..., Any]) -> Line:
        """Works written in the same place are of a kind."""
        while isinstance(work, partial):
            work = work.func
        return self._lines[getattr(work, "__code__", type(work))]
