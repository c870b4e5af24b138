"""Who else writes: one connection a process that listens for others and tells of us, however much there is to tell.

Behind a pooler in transaction mode nobody can listen; there the number of transactions is looked at instead.
"""

import asyncio
import logging
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from terrace.storage.postgresql.doubting import Doubt
from terrace.storage.postgresql.engine import engine_for
from terrace.storage.works import call_soon

log = logging.getLogger(__name__)

CHANNEL = "terrace"
TELL_SECONDS = 0.01  # at most one word in this time
LOOK_SECONDS = 0.25  # how often to look where we cannot listen
KNOCK_SECONDS = 5.0  # how often a silent connection is asked whether it is still there
FIRST_WAIT, LONGEST_WAIT = 0.1, 3.0  # between attempts to connect
SEEN = "SELECT pg_current_snapshot()::text"  # changes whenever a transaction that writes begins or ends


class Watch:
    """Its thread and its connection come with the first who watches or writes."""

    def __init__(self, url: str, doubt: Doubt, *, knock: float = KNOCK_SECONDS) -> None:
        self._engine = engine_for(url)
        self._knock = knock
        self._doubt = doubt
        self._watchers: dict[Callable[[], None], asyncio.AbstractEventLoop] = {}
        self._name = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._bell = Bell()
        self._dirty = False  # we have written, and have not said so
        self._closing = threading.Event()
        self._wait = FIRST_WAIT

    def add(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        self._watchers = {**self._watchers, wake: loop}
        if self._thread is not None:
            call_soon(loop, wake)
        self._begin()

        def stop() -> None:
            self._watchers = {each: loop for each, loop in self._watchers.items() if each != wake}

        return stop

    def tell(self) -> None:
        """We have written: the others shall hear of it, soon and together with what else we write."""
        if not self._dirty:
            self._dirty = True
            self._begin()
            self._bell.ring()

    def leave(self) -> None:
        """Soon: what we have written is told yet, if that is possible."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
        self._bell.ring()

    def close(self) -> None:
        self.leave()
        if self._thread is not None:
            self._thread.join()
        self._bell.close()
        self._engine.dispose()

    def _begin(self) -> None:
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="db-watch", daemon=True)
                self._thread.start()

    # -- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with self._connected() as driver:
                    # A pooler tells another number than the process that really serves us has.
                    pid = self._say(driver, "SELECT pg_backend_pid()").fetchone()[0]
                    if pid == driver.info.backend_pid:
                        self._listen(driver)
                    else:
                        self._look(driver)
            except Exception as error:  # whatever it is: this thread must live on
                if self._wait == FIRST_WAIT:
                    log.warning("the database cannot be listened to for now: %s", type(error).__name__)
                self._bell.wait(self._wait, until=self._closing)
                self._wake()  # nobody could have told us: whoever watches looks for themselves
                self._wait = min(self._wait * 2, LONGEST_WAIT)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        with self._engine.connect() as connection:
            try:
                yield connection.connection.driver_connection
            finally:
                connection.invalidate()

    def _listen(self, driver: Any) -> None:
        self._say(driver, f"LISTEN {CHANNEL}")
        self._ready()
        told = heard = time.monotonic()
        spoke = False
        while self._dirty or not self._closing.is_set():
            dirty = self._dirty
            wait = told + TELL_SECONDS - time.monotonic() if dirty else self._knock
            # What came while we spoke lies in the driver already, where no wait would see it.
            self._bell.wait(0 if spoke or self._closing.is_set() else wait, other=driver.fileno(), deaf=dirty)
            if any(word.payload != self._name for word in list(driver.notifies(timeout=0))):
                self._wake()
            moment, spoke = time.monotonic(), True
            if self._dirty and (self._closing.is_set() or moment >= told + TELL_SECONDS):
                self._dirty = False
                self._say(driver, f"NOTIFY {CHANNEL}, '{self._name}'")
                told = heard = moment
            elif moment >= heard + self._knock:
                self._say(driver, "SELECT 1")
                heard = moment
            else:
                spoke = False

    def _look(self, driver: Any) -> None:
        seen: str | None = None
        while not self._closing.is_set():
            self._dirty = False  # the others look too
            found = self._say(driver, SEEN).fetchone()[0]
            if seen is None:
                self._ready()
            elif found != seen:
                self._wake()
            seen = found
            self._bell.wait(LOOK_SECONDS, until=self._closing)

    def _say(self, driver: Any, statement: str) -> Any:
        with self._doubt.waiting(driver, briefly=True):
            return driver.execute(statement)

    def _ready(self) -> None:
        """From now on nothing escapes us; what was written before may have."""
        if self._wait > FIRST_WAIT:
            log.info("the database is listened to again")
        self._wait = FIRST_WAIT
        self._wake()

    def _wake(self) -> None:
        for wake, loop in self._watchers.items():
            call_soon(loop, wake)


class Bell:
    """What a thread waits by, together with a connection."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def ring(self) -> None:
        self._outside.send(b".")

    def wait(
        self, seconds: float, *, other: int | None = None, deaf: bool = False, until: threading.Event | None = None
    ) -> None:
        """Until it rings (or `until` is set, where that is named), or `other` has something to read."""
        if until is not None and until.is_set():
            return
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            if not deaf:
                selector.register(self._inside, selectors.EVENT_READ)
            if other is not None:
                selector.register(other, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(max(0.0, end - time.monotonic()))]
                if self._inside in ready:
                    self._inside.recv(4096)
                if until is None or until.is_set() or not ready:
                    return

    def close(self) -> None:
        self._inside.close()
        self._outside.close()
