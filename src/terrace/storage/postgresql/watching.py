"""Who else writes: one connection a process that listens for others and tells of us, however much there is to tell.

Behind a pooler in transaction mode nobody can listen; there the number of transactions is looked at instead.
"""

import asyncio
import logging
import os
import secrets
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from terrace.storage.postgresql.engine import engine_for
from terrace.storage.works import call_soon

log = logging.getLogger(__name__)

CHANNEL = "terrace"
TELL_SECONDS = 0.01  # at most one word in this time
LOOK_SECONDS = 0.25  # how often to look where we cannot listen
KNOCK_SECONDS = 15.0  # how often a silent connection is asked whether it is still there
LONGEST_WAIT = 5.0  # between attempts to connect
SEEN = "SELECT pg_current_snapshot()::text"  # changes whenever a transaction that writes begins or ends


class Watch:
    """Its thread and its connection come with the first who watches or writes."""

    def __init__(self, url: str) -> None:
        self._engine = engine_for(url)
        self._watchers: dict[Callable[[], None], asyncio.AbstractEventLoop] = {}
        self._name = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stir, self._stirred = -1, -1
        self._dirty = False
        self._closing = False

    def add(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        self._watchers = {**self._watchers, wake: loop}
        self._begin()

        def stop() -> None:
            self._watchers = {each: loop for each, loop in self._watchers.items() if each != wake}

        return stop

    def tell(self) -> None:
        """We have written: the others shall hear of it, soon and together with what else we write."""
        if not self._dirty:
            self._dirty = True
            self._begin()
            os.write(self._stirred, b".")

    def close(self) -> None:
        with self._lock:
            self._closing = True
        if self._thread is not None:
            os.write(self._stirred, b".")
            self._thread.join()
            os.close(self._stir)
            os.close(self._stirred)
        self._engine.dispose()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing:
                self._stir, self._stirred = os.pipe()
                self._thread = threading.Thread(target=self._run, name="db-watch", daemon=True)
                self._thread.start()

    # -- the thread

    def _run(self) -> None:
        wait, away = 0.1, False
        while not self._closing:
            try:
                self._with_connection(missed=away)
                wait = 0.1
            except Exception as error:  # whatever it is: this thread must live on
                if not away:
                    log.warning("the database cannot be listened to: %s", type(error).__name__)
                away = True
                self._pause(wait)
                wait = min(wait * 2, LONGEST_WAIT)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._closing and (left := end - time.monotonic()) > 0:
            select.select([self._stir], [], [], left)
            if self._closing:
                return
            self._drain()

    def _drain(self) -> None:
        if select.select([self._stir], [], [], 0)[0]:
            os.read(self._stir, 4096)

    def _with_connection(self, *, missed: bool) -> None:
        with self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            pid = driver.execute("SELECT pg_backend_pid()").fetchone()[0]
            listens = pid == driver.info.backend_pid  # a pooler tells another number
            if listens:
                driver.execute(f"LISTEN {CHANNEL}")
            if missed:
                log.info("the database is listened to again")
                self._wake()
            try:
                self._listen(driver) if listens else self._look(driver)
            finally:
                connection.invalidate()

    def _listen(self, driver: Any) -> None:
        told = heard = time.monotonic()
        while not (self._closing and not self._dirty):
            waiting = self._dirty
            wait = told + TELL_SECONDS - time.monotonic() if waiting else KNOCK_SECONDS
            self._wait(driver, 0 if self._closing else max(wait, 0), stirred=not waiting)
            if any(word.payload != self._name for word in list(driver.notifies(timeout=0))):
                heard = time.monotonic()
                self._wake()
            moment = time.monotonic()
            if self._dirty and (self._closing or moment >= told + TELL_SECONDS):
                self._dirty = False
                driver.execute(f"NOTIFY {CHANNEL}, '{self._name}'")
                told = heard = moment
            elif moment >= heard + KNOCK_SECONDS:
                driver.execute("SELECT 1")
                heard = moment

    def _wait(self, driver: Any, seconds: float, *, stirred: bool) -> None:
        """Until somebody says something, here or there; once stirred, for others only."""
        ready, _, _ = select.select([driver.fileno(), *([self._stir] if stirred else [])], [], [], seconds)
        if self._stir in ready:
            os.read(self._stir, 4096)

    def _look(self, driver: Any) -> None:
        seen: str | None = None
        while not self._closing:
            self._dirty = False
            found = driver.execute(SEEN).fetchone()[0]
            if seen is not None and found != seen:
                self._wake()
            seen = found
            self._pause(LOOK_SECONDS)

    def _wake(self) -> None:
        for wake, loop in self._watchers.items():
            call_soon(loop, wake)
