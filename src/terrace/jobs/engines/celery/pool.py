"""Celery's pool of our own: every job it is brought runs on the one event loop of the process."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.concurrency.base import BasePool
from celery.exceptions import TaskRevokedError
from celery.worker.request import Request
from celery.worker.state import task_ready

from terrace.jobs.base import Lane
from terrace.jobs.engines.celery.engine import Ended

if TYPE_CHECKING:
    from terrace.jobs.engines.celery.building import JobApp


class LoopPool(BasePool):  # type: ignore[misc]
    """Takes as many jobs as the settings have slots; `-c` is for the prefork pool."""

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

    def carry(self, request: "JobRequest") -> None:
        """On Celery's thread."""
        arguments = request.args
        job_id = arguments[0] if len(arguments) == 1 else ""
        lane = self.app.lane_of(request.delivery_info["routing_key"])
        self.app.residence.bring(job_id, lane, _Message(request, self.soon))

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
                self._calls.popleft()()


class JobRequest(Request):  # type: ignore[misc]
    """A message that goes to the loop where the pool has one, without a thread or process that waits for its end."""

    def execute_using_pool(self, pool: Any, **options: Any) -> Any:
        if not isinstance(pool, LoopPool):
            return super().execute_using_pool(pool, **options)
        if self.revoked():
            raise TaskRevokedError(self.id)
        pool.carry(self)
        return None

    def on_begun(self) -> None:
        self.on_accepted(os.getpid(), time.monotonic())

    def on_over(self, ended: Ended) -> None:
        if ended.failed:
            task_ready(self)
            self.send_event("task-failed", exception=repr(ended.words), traceback="")
        else:
            self.on_success((0, ended.words, time.time() - self.time_start))


class _Message:
    """Its bearer on the event loop."""

    def __init__(self, request: JobRequest, soon: Callable[[Callable[[], None]], None]) -> None:
        self._request = request
        self._soon = soon

    def begun(self) -> None:
        self._soon(self._request.on_begun)

    def over(self, ended: Ended) -> None:
        self._soon(lambda: self._request.on_over(ended))

    def left(self) -> None:
        """Not acknowledged: the broker gives it to another worker."""
