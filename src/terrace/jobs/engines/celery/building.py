"""The Celery app: two queues, one task, and settings that are read when Celery first needs them."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery import Celery, bootsteps
from celery.signals import celeryd_init
from celery.worker.components import Pool
from kombu.entity import Exchange, Queue

from terrace.jobs.base import Lane
from terrace.jobs.engines.celery.broker import Broker, url_of
from terrace.jobs.engines.celery.engine import JobFailed
from terrace.settings import Settings

if TYPE_CHECKING:
    from terrace.jobs.engines.celery.residence import Residence

TASK = "terrace.run"
ROOM = "terrace.jobs.engines.celery"


class JobApp(Celery):  # type: ignore[misc]
    """Made of `read`, which gives the settings; `residence` is where a worker process keeps what runs its jobs."""

    job_task = TASK

    def __init__(self, read: Callable[[], Settings], residence: "Callable[[JobApp], Residence] | None" = None) -> None:
        super().__init__("terrace", set_as_current=False, autofinalize=True, fixups=[])
        self._read = read
        self._open_residence = residence
        self.add_defaults(self._configuration)
        self.task(run, name=TASK, bind=True, throws=(JobFailed,), shared=False)
        self.steps["worker"].add(Slots)
        self.steps["worker"].add(Drain)
        celeryd_init.connect(self._before_working)

    @cached_property
    def terrace(self) -> Settings:
        return self._read()

    @cached_property
    def residence(self) -> "Residence":
        """Of this process. Not before a fork: threads do not survive one."""
        assert self._open_residence is not None, "this app only publishes"
        return self._open_residence(self)

    @cached_property
    def job_queues(self) -> Mapping[Lane, Queue]:
        prefix = self.terrace.redis.prefix
        exchange = Exchange(f"{prefix}.jobs", type="direct")  # type: ignore[no-untyped-call]
        lanes: tuple[Lane, ...] = ("io", "cpu")
        return {
            lane: Queue(f"{prefix}.{lane}", exchange, routing_key=f"{prefix}.{lane}")  # type: ignore[no-untyped-call]
            for lane in lanes
        }

    def lane_of(self, queue: str) -> Lane:
        return "cpu" if queue == self.job_queues["cpu"].name else "io"

    def _before_working(self, instance: Any = None, conf: Any = None, **_: Any) -> None:
        """A worker's connection only: Flower tells by the usual one what it talks to."""
        if getattr(instance, "app", None) is self and url_of(self.terrace).startswith("redis"):
            conf.broker_transport = f"{ROOM}.transport:Transport"

    def _configuration(self) -> dict[str, Any]:
        settings = self.terrace
        return {
            "broker_url": url_of(settings),
            "broker_connection_retry_on_startup": True,
            "broker_connection_max_retries": None,  # a worker outlives its broker
            "broker_transport_options": _transport(url_of(settings)),
            "task_queues": tuple(self.job_queues.values()),
            "task_default_queue": self.job_queues["io"].name,
            "task_create_missing_queues": False,
            "task_acks_late": False,  # once it is begun, the row alone says what becomes of a job
            "worker_cancel_long_running_tasks_on_connection_loss": False,
            "worker_pool": f"{ROOM}.pool:LoopPool",
            "worker_concurrency": settings.jobs.cpu_slots,  # of prefork children; on one loop the settings' slots count
            "worker_prefetch_multiplier": 1,
            "worker_proc_alive_timeout": 60.0,
            "worker_hijack_root_logger": False,
            "accept_content": ["json"],
            "task_serializer": "json",
            "task_ignore_result": True,
            "result_backend": None,
            "worker_send_task_events": False,  # Flower turns them on
        }


def publisher(settings: Settings) -> Broker:
    """Of a process that need not run jobs. Raises Invalid when no broker is named."""
    url_of(settings)
    return Broker(JobApp(lambda: settings))


def run(task: Any, job_id: str) -> str:
    """Claim the job, run it and wait for its end: in a prefork child, where one message is served at a time."""
    ended = task.app.residence.carry(job_id, "cpu")
    if ended.failed:
        raise JobFailed(ended.words)
    return str(ended.words)


class Slots(bootsteps.Step):  # type: ignore[misc]
    """Fetch as many messages ahead as our own pool has slots."""

    requires = (Pool,)

    def create(self, worker: Any) -> None:
        worker.concurrency = worker.pool.slots if hasattr(worker.pool, "slots") else worker.concurrency


class Drain(bootsteps.StartStopStep):  # type: ignore[misc]
    """At the end, before the pool is waited for: have prefork children give back what does not end soon."""

    requires = (Pool,)

    def stop(self, worker: Any) -> None:
        from terrace.jobs.engines.celery.children import drain

        drain(worker.pool)


def _transport(url: str) -> dict[str, Any]:
    if url.startswith("amqp"):
        return {"confirm_publish": True, "read_timeout": 30, "write_timeout": 10}
    # A message is gone once it is fetched: what acknowledging late would bring back, the row does. It saves Redis three
    # commands a message.
    patience = {"socket_connect_timeout": 5.0, "socket_timeout": 30.0, "health_check_interval": 10}
    return {"ack_emulation": False, **patience}
