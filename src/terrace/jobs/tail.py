"""What other processes have stored, for all who follow something here: one read at a time for the whole process.

It is woken whenever another process has written, so its cost must depend neither on how often that is nor much on how
many follow: a thousand streams over one job table ask one question.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Sequence
from contextlib import suppress

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from terrace.errors import TerraceError
from terrace.jobs.base import EventId, JobEvent
from terrace.jobs.hub import Behind, Hub
from terrace.jobs.statements import is_postgresql
from terrace.storage import Database
from terrace.types import now

log = logging.getLogger(__name__)

PAGE = 2000  # events of one read
JOBS = 500  # asked about in one statement
NET_SECONDS = 5.0  # looked this often even when nobody wakes us
RETRY_SECONDS = 0.5  # after the database refused
LOOKBACK_SECONDS = 2.0  # a transaction may commit this long after it looked at the clock

FOLLOWED = (
    "SELECT tenant_id, job_id, event.attempt, event.seq, type, data FROM "
    "(SELECT column1 AS tenant, column2 AS job, column3 AS attempt, column4 AS seq FROM (VALUES {values})) AS followed "
    "CROSS JOIN job_events AS event WHERE tenant_id = tenant AND job_id = job "
    "AND (event.attempt, event.seq) > (followed.attempt, followed.seq) "
    f"ORDER BY tenant_id, job_id, event.attempt, event.seq LIMIT {PAGE}"
)
FOLLOWED_BY_ARRAYS = text(
    "SELECT event.* FROM unnest(CAST(:tenants AS text[]), CAST(:jobs AS text[]), CAST(:attempts AS integer[]), "
    "CAST(:seqs AS integer[])) AS followed(tenant, job, attempt, seq) CROSS JOIN LATERAL ("
    "SELECT tenant_id, job_id, attempt, seq, type, data FROM job_events WHERE tenant_id = followed.tenant "
    "AND job_id = followed.job AND (attempt, seq) > (followed.attempt, followed.seq) "
    f"ORDER BY attempt, seq LIMIT {PAGE}) AS event LIMIT {PAGE}"
)
CHANGED = text("SELECT 1 FROM jobs WHERE tenant_id = :tenant AND updated_at >= :since LIMIT 1")

Events = dict[tuple[str, str], list[JobEvent]]


class Tail:
    """`wake` says that there may be something; `pause` is asked how long to rest after a read, in seconds."""

    def __init__(
        self, database: Database, hub: Hub, ours: Callable[[], Container[str]], pause: Callable[[], float]
    ) -> None:
        self._database = database
        self._hub = hub
        self._ours = ours
        self._pause = pause
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._looked = now()
        self.reads = 0  # so far

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._forever(), name="job-tail")

    def wake(self) -> None:
        self._woken.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _forever(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(NET_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self._read()
            except (TerraceError, DBAPIError) as error:
                log.warning("could not read what other processes wrote, trying again: %s", error)
                await self._again()
            except Exception:
                log.exception("reading what other processes wrote failed")
                await self._again()
            await asyncio.sleep(self._pause())

    async def _again(self) -> None:
        self._woken.set()
        await asyncio.sleep(RETRY_SECONDS)

    async def _read(self) -> None:
        behind, tenants = self._hub.behind(self._ours()), self._hub.tenants()
        since, self._looked = self._looked - LOOKBACK_SECONDS, now()
        if not behind and not tenants:
            return
        self.reads += 1
        events, changed = await self._database.read(_look, behind, tenants, since)
        self._hub.publish(events)
        self._hub.changed(changed)
        if sum(len(theirs) for theirs in events.values()) >= PAGE:
            self._woken.set()


def _look(session: Session, behind: Sequence[Behind], tenants: Sequence[str], since: float) -> tuple[Events, list[str]]:
    events: Events = {}
    for start in range(0, len(behind), JOBS):
        _events(session, behind[start : start + JOBS], events)
    return events, [each for each in tenants if session.execute(CHANGED, {"tenant": each, "since": since}).first()]


def _events(session: Session, behind: Sequence[Behind], events: Events) -> None:
    """What followed in the table, of all these jobs, into `events`."""
    if is_postgresql(session):
        asked = {
            "tenants": [each.tenant for each in behind],
            "jobs": [each.job_id for each in behind],
            "attempts": [each.at.attempt for each in behind],
            "seqs": [each.at.seq for each in behind],
        }
        rows = session.execute(FOLLOWED_BY_ARRAYS, asked)
    else:
        statement = FOLLOWED.format(values=", ".join(["(?, ?, ?, ?)"] * len(behind)))
        values = tuple(value for each in behind for value in (each.tenant, each.job_id, *each.at))
        rows = session.connection().exec_driver_sql(statement, values)
    for tenant, job_id, attempt, seq, type, data in rows:
        event = JobEvent(EventId(attempt, seq), type, msgspec.json.decode(data))
        events.setdefault((tenant, job_id), []).append(event)
