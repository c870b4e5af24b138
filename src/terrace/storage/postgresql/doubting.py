"""Connections that fell silent.

The kernel notices a peer that is gone. It does not notice one that something in between still answers for: a proxy that
hangs, a balancer that forgot us. So whoever has waited for long on one connection is looked after here: the server
is asked on another whether it still works for them. Where it does not, or cannot be asked, theirs is cut, and they
hear of it at once.

The server may not hear of it: amid several messages that belong together (a pipeline, a COPY) it waits for the rest
without any bound, and keeps their locks. So it is told to end what served them, as soon as it can be told anything.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

log = logging.getLogger(__name__)

SILENT_SECONDS = 10.0  # who has waited for so long is asked about
IDLE_SECONDS = 20.0  # the server has waited for so long: for who is not busy, but not heard any more
LOOK_SECONDS = 2.5
ANSWER_SECONDS = 5.0  # for the answer; for the connection there is its own bound
# Who serves us, and which of these the server works for, or has until lately.
ASKED = f"""
SELECT pg_backend_pid(), ARRAY(SELECT pid FROM pg_stat_activity WHERE pid = ANY(%s)
AND (state = 'active' OR state_change > clock_timestamp() - interval '{IDLE_SECONDS} seconds'))"""

# By whom it was served since so many seconds: whoever has got that number since then is somebody else.
END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN unnest(%s::int[], %s::float8[]) AS left_by(pid, age)
USING (pid) WHERE backend_start < clock_timestamp() - age * interval '1 second'"""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    driver: Any
    since: float
    briefly: bool  # nothing that is said here takes long

    def cut(self) -> None:
        """Whoever reads from it reads its end."""
        with suppress(OSError), socket.socket(fileno=os.dup(self.driver.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


class Doubt:
    """Its thread comes with the first who waits."""

    def __init__(self, engine: Engine, tell: Callable[[bool], None]) -> None:
        self._engine = engine
        self._tell = tell  # called before any is cut: whether the server could not even be asked
        self._waiting: dict[Any, Waiting] = {}  # by driver
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._all = False  # whoever waits is cut at once
        self._left: dict[int, float] = {}  # by the number of who served them: those that were cut, and since when

    @contextmanager
    def waiting(self, driver: Any, *, briefly: bool = False) -> Iterator[None]:
        """Meanwhile we talk to the server over `driver`."""
        if self._thread is None:
            self._begin()
        self._waiting[driver] = Waiting(driver, time.monotonic(), briefly)
        try:
            if self._all:
                self.cut_all()
            yield
        finally:
            with self._lock:  # nobody cuts it any more: it may be closed now, and its number be somebody else's
                del self._waiting[driver]

    def cut_all(self) -> None:
        """Nobody waits any more, now or later."""
        self._all = True
        self._closing.set()
        with self._lock:
            for each in list(self._waiting.values()):
                log.warning("the database has not answered in time, and is waited for no more")
                each.cut()

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="db-doubt", daemon=True)
                self._thread.start()

    # -- the thread

    def _run(self) -> None:
        doubted: Sequence[Waiting] = ()
        while not self._closing.wait(LOOK_SECONDS):
            asked = time.monotonic()
            silent = self._since(asked - SILENT_SECONDS)
            if not (silent or self._left):
                continue
            try:
                dead = self._ask_about(silent)
            except DBAPIError as error:
                if silent:
                    log.warning("the database is silent, and cannot be asked why: %s", type(error).__name__)
                    self._cut(self._since(asked), away=True)
            else:
                # Seen twice: we may all have been stopped, and the answers lie there to be read.
                self._cut([each for each in dead if each in doubted], away=False)
                doubted = dead

    def _since(self, moment: float) -> list[Waiting]:
        """Those that wait since then, or for longer."""
        return [each for each in list(self._waiting.values()) if each.since <= moment]

    def _ask_about(self, silent: Sequence[Waiting]) -> list[Waiting]:
        """Those that the server does not work for. It ends what served those that were cut."""
        pids = {each: each.driver.info.backend_pid for each in silent if not each.driver.closed}
        with self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            in_time = threading.Timer(ANSWER_SECONDS, Waiting(driver, 0, briefly=True).cut)
            in_time.start()
            try:
                own, lively = connection.exec_driver_sql(ASKED, (list(pids.values()),)).one()
                pooled = own != driver.info.backend_pid  # a pooler makes up numbers, and ends what it lost by itself
                if self._left and not pooled:
                    ages = [time.monotonic() - since for since in self._left.values()]
                    connection.exec_driver_sql(END, (list(self._left), ages))
                self._left.clear()
            finally:
                in_time.cancel()
                in_time.join()
        # Through a pooler nobody can tell: what is no moment may still go on.
        return [each for each, pid in pids.items() if each.briefly or not (pooled or pid in lively)]

    def _cut(self, dead: Sequence[Waiting], *, away: bool) -> None:
        if dead:
            self._tell(away)
        with self._lock:
            for each in dead:
                if self._waiting.get(each.driver) is each:
                    log.warning("a connection to the database fell silent, and is given up")
                    self._left[each.driver.info.backend_pid] = each.since
                    each.cut()
