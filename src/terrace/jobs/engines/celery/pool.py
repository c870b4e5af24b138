"""Celery's pool of our own: every job it is brought runs on the one event loop of the process."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool

from terrace.jobs.base import Lane
from terrace.jobs.engines.celery.engine import Ended, JobFailed

if TYPE_CHECKING:
    from terrace.jobs.engines.celery.building import JobApp

log = logging.getLogger(__name__)


class LoopPool(BasePool):  # type: ignore[misc]
    """Takes as many jobs as the settings have slots; `-c` is for prefork children."""

    app: "JobApp"
    signal_safe = False
    task_join_will_block = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hub: Any = None
        self._calls: deque[Callable[[], None]] = deque()
        self._calling = threading.Lock()
        self.slots = sum(
            self.app.terrace.jobs.io_slots if lane == "io" else self.app.terrace.jobs.cpu_slots for lane in self.lanes
        )
        self.limit = self.slots

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Of the queues this worker consumes from."""
        return tuple(sorted({self.app.lane_of(name) for name in self.app.amqp.queues.consume_from}))

    def on_start(self) -> None:
        self.app.residence.open(self.lanes)

    def on_stop(self) -> None:
        self.app.residence.close()
        self._hub = None
        self._call()

    on_terminate = on_stop

    def register_with_event_loop(self, hub: Any) -> None:
        self._hub = hub

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        accept_callback: Callable[[int, float], None],
        callback: Callable[[tuple[bool, Any, float]], None],
        **_: Any,
    ) -> None:
        """On Celery's thread: `target` would run a task here and now; what it would find is in the request."""
        request = args[2]
        arguments = request["args"]
        job_id = arguments[0] if isinstance(arguments, list) and len(arguments) == 1 else ""
        lane = self.app.lane_of(request["delivery_info"]["routing_key"])
        self.app.residence.bring(job_id, lane, _Message(self.soon, accept_callback, callback))

    def soon(self, call: Callable[[], None]) -> None:
        """Have it called on Celery's thread, in order: requests and their acknowledgement are for that one alone."""
        self._calls.append(call)
        if self._hub is None:
            self._call()
        else:
            self._hub.call_soon(self._call)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Not from here: a job is cancelled where its row is."""

    def _call(self) -> None:
        with self._calling:
            while self._calls:
                try:
                    self._calls.popleft()()
                except Exception:  # the broker could not be told; the job goes on, and the other messages too
                    log.exception("Celery could not be told what became of a message")


class _Message:
    """Its bearer on the event loop."""

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], None],
        accepted: Callable[[int, float], None],
        done: Callable[[tuple[bool, Any, float]], None],
    ) -> None:
        self._soon, self._accepted, self._done = soon, accepted, done
        self._began = time.monotonic()

    def begun(self) -> None:
        self._began = time.monotonic()
        self._soon(partial(self._accepted, os.getpid(), self._began))

    def over(self, ended: Ended) -> None:
        result = _failure(ended.words) if ended.failed else ended.words
        self._soon(partial(self._done, (ended.failed, result, time.monotonic() - self._began)))

    def left(self) -> None:
        """Not acknowledged: the broker gives it to another worker."""


def _failure(words: str) -> ExceptionInfo:
    try:
        raise JobFailed(words)
    except JobFailed:
        return ExceptionInfo()
