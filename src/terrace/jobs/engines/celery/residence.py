"""An event loop on a thread of its own, and on it the engine with all that its handlers need.

Celery's own thread is Celery's; what crosses over is a job's id, and back what became of it.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from terrace.jobs.base import Lane
from terrace.jobs.engines.celery.engine import NOT_OURS, Bearer, CeleryJobs, Ended

log = logging.getLogger(__name__)

Opener = Callable[[Iterable[Lane]], AbstractAsyncContextManager[CeleryJobs]]


class Residence(Protocol):
    """Where a worker process keeps what runs jobs. Its methods may be called on any thread."""

    def begin(self, lanes: Iterable[Lane]) -> None:
        """As `open`, which need not be waited for."""

    def open(self, lanes: Iterable[Lane]) -> None:
        """Return when jobs can be brought. Raises what keeps it from opening."""

    def bring(self, job_id: str, lane: Lane, bearer: Bearer) -> None: ...

    def carry(self, job_id: str, lane: Lane) -> Ended:
        """Bring it and wait until it is over."""

    def drain(self) -> None:
        """Take no more, and let go what does not end soon; returns at once."""

    def close(self) -> None:
        """Drain, and end. Returns when all is closed."""


class Waiting:
    """Bears a message whose sender waits."""

    def __init__(self) -> None:
        self.ended: Future[Ended] = Future()

    def begun(self) -> None:
        """It was acknowledged before it came to us."""

    def over(self, ended: Ended) -> None:
        self.ended.set_result(ended)

    def left(self) -> None:
        self.ended.set_result(NOT_OURS)


class ThreadResidence:
    """`opener` gives a started engine for as long as its context is open."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._opened: Future[tuple[asyncio.AbstractEventLoop, CeleryJobs]] = Future()
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._begin = threading.Lock()

    def begin(self, lanes: Iterable[Lane]) -> None:
        """Open, and return at once; again, where it had failed."""
        with self._begin:
            if self._thread is None or (self._opened.done() and self._opened.exception() is not None):
                self._opened = Future()
                self._thread = threading.Thread(
                    target=self._live, args=(tuple(lanes),), name="terrace-jobs", daemon=True
                )
                self._thread.start()

    def open(self, lanes: Iterable[Lane]) -> None:
        self.begin(lanes)
        self._opened.result()

    def bring(self, job_id: str, lane: Lane, bearer: Bearer) -> None:
        loop, jobs = self._opened.result()
        loop.call_soon_threadsafe(jobs.bring, job_id, lane, bearer)

    def carry(self, job_id: str, lane: Lane) -> Ended:
        self.open((lane,))
        waiting = Waiting()
        self.bring(job_id, lane, waiting)
        return waiting.ended.result()

    def drain(self) -> None:
        if self._thread is not None and self._opened.done() and self._opened.exception() is None:
            loop, jobs = self._opened.result()
            asyncio.run_coroutine_threadsafe(jobs.drain(), loop)

    def close(self) -> None:
        if self._thread is None:
            return
        if self._opened.exception() is None:
            loop, _ = self._opened.result()
            assert self._stop is not None
            loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _live(self, lanes: tuple[Lane, ...]) -> None:
        try:
            asyncio.run(self._reside(lanes))
        except BaseException as error:
            if self._opened.done():
                log.exception("what runs jobs did not close cleanly")
            else:
                self._opened.set_exception(error)

    async def _reside(self, lanes: tuple[Lane, ...]) -> None:
        self._stop = asyncio.Event()
        async with self._opener(lanes) as jobs:
            self._opened.set_result((asyncio.get_running_loop(), jobs))
            await self._stop.wait()
            await jobs.drain()
