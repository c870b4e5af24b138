"""Celery's broker as the publisher sees it: blocking, so on a thread of its own, and away now and then."""

import asyncio
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from terrace.errors import Invalid, Unavailable, bring
from terrace.jobs.base import Lane
from terrace.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

SCHEMES = ("redis://", "rediss://", "amqp://", "amqps://", "redis+socket://", "sentinel://")
CONNECT_SECONDS = 5.0


def require() -> None:
    """Raises Unavailable where Celery is not installed."""
    if find_spec("celery") is None:
        raise Unavailable(f"The Celery engine's packages are missing: {bring('celery')}", code="extra_missing")


def url_of(settings: Settings) -> str:
    """The broker's address. Raises Invalid where none is named, or one that is neither Redis nor RabbitMQ."""
    url = settings.jobs.broker or settings.redis.url
    if not url.startswith(SCHEMES):
        raise Invalid(
            "The Celery engine needs a broker: set TERRACE_JOBS__BROKER (or TERRACE_REDIS__URL) to redis://... "
            "or amqp://...",
            code="bad_settings",
        )
    return url


class Broker:
    """Publishes ids. The connection is made with the first, and again after it was lost."""

    def __init__(self, app: "Celery") -> None:
        self._app = app
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="celery-publish")
        self._producer: Any = None

    async def publish(self, messages: Sequence[tuple[str, Lane, float]]) -> None:
        """(job id, lane, seconds after which its process is killed). Raises Unavailable when the broker is away.

        Then some may have arrived, which does no harm: a job is run for the first message only.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, messages)

    async def close(self) -> None:
        """The connection, once what is being published is; it would open again."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._forget)

    def _publish(self, messages: Sequence[tuple[str, Lane, float]]) -> None:
        from kombu.exceptions import KombuError, OperationalError

        errors: tuple[type[BaseException], ...] = (OperationalError, OSError, KombuError)
        if self._producer is None:
            connection = self._app.connection_for_write(connect_timeout=CONNECT_SECONDS)
        else:
            connection = self._producer.connection
        errors = (*errors, *connection.recoverable_connection_errors, *connection.recoverable_channel_errors)
        try:
            if self._producer is None:
                connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
                self._producer = self._app.amqp.Producer(connection, auto_declare=False)
            for job_id, lane, limit in messages:
                self._send(job_id, lane, limit)
        except errors as error:
            self._forget()
            raise _away(error) from error

    def _send(self, job_id: str, lane: Lane, limit: float) -> None:
        """A task as Celery's own client sends it, under an id of its own: one that is revoked stops no later one."""
        task = self._app.amqp.as_task_v2(
            f"{job_id}-{secrets.token_hex(4)}", self._app.job_task, (job_id,), time_limit=limit
        )
        queue = self._app.job_queues[lane]
        self._producer.publish(
            task.body,
            exchange=queue.exchange,
            routing_key=queue.routing_key,
            declare=[queue],
            delivery_mode="transient",
            serializer="json",
            headers=task.headers,
            **task.properties,
        )

    def _forget(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.connection.collect(socket_timeout=1)


def _away(error: BaseException) -> Unavailable:
    return Unavailable(
        f"The broker of jobs cannot be reached ({type(error).__name__}). Jobs wait until it is back.",
        code="broker_unreachable",
        retry_after=1,
    )
