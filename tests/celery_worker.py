"""A real Celery worker on a thread of the test's process, whose jobs run on the test's event loop."""

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

from celery.worker import WorkController, state

from terrace.jobs.base import JobKind, Lane
from terrace.jobs.engines.celery import CeleryJobs
from terrace.jobs.engines.celery.broker import Broker
from terrace.jobs.engines.celery.building import JobApp
from terrace.jobs.engines.celery.engine import Bearer, Ended
from terrace.settings import Jobs as Options
from terrace.settings import Redis, Settings
from terrace.storage import Database
from terrace.types import new_id


class Lodging:
    """The residence of a worker whose engine is the test's own, on the test's event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.jobs: CeleryJobs | None = None

    def begin(self, lanes: Iterable[Lane]) -> None: ...

    def open(self, lanes: Iterable[Lane]) -> None: ...

    def bring(self, job_id: str, lane: Lane, bearer: Bearer) -> None:
        assert self.jobs is not None
        self.loop.call_soon_threadsafe(self.jobs.bring, job_id, lane, bearer)

    def carry(self, job_id: str, lane: Lane) -> Ended:
        raise AssertionError("nothing runs on prefork here")

    def drain(self) -> None: ...

    def close(self) -> None: ...


class Worker(WorkController):
    """Says when it consumes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.consuming = threading.Event()
        super().__init__(*arguments, **options)

    def on_consumer_ready(self, consumer: Any) -> None:
        self.consuming.set()


class Engine(CeleryJobs):
    """An engine together with its worker, which is started and ended with it."""

    def __init__(self, database: Database, options: Options, kinds: Iterable[JobKind], broker: str) -> None:
        settings = Settings(
            redis=Redis(prefix=new_id("t")[:40]), jobs=options.model_copy(update={"engine": "celery", "broker": broker})
        )
        lodging = Lodging()
        self.app = JobApp(lambda: settings, lambda app: lodging)
        super().__init__(database, options, kinds, broker=Broker(self.app))
        lodging.jobs = self
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        self.serve(("io", "cpu"))
        await super().start()
        await asyncio.to_thread(self._begin_work)

    def _begin_work(self) -> None:
        self.app.finalize()
        self.app.conf.broker_transport_options["polling_interval"] = 0.05  # else it takes a second to end
        self._worker = Worker(
            app=self.app, pool_cls=self.app.conf.worker_pool, hostname=new_id("w"), loglevel="ERROR",
            without_mingle=True, without_gossip=True, without_heartbeat=True, quiet=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._worker.start, daemon=True)
        self._thread.start()
        assert self._worker.consuming.wait(30)

    async def close(self) -> None:
        await super().close()
        if self._worker is not None:
            await asyncio.to_thread(self._end_work)

    def _end_work(self) -> None:
        assert self._thread is not None
        state.should_stop = 0
        self._worker.hub.call_soon(lambda: None)
        self._thread.join(20)
        state.should_stop = None
        assert not self._thread.is_alive()
        self.app.close()
