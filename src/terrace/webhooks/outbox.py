"""Deliveries as they are put in, and the couriers that fetch them. Functions of the caller's transaction.

A courier is a job, one a lane at a time, so a receiver that hangs takes one place of its tenant's and no more, and an
event costs a row, not a job. Whoever acts on a courier's row writes to it first: of an event that comes in and a
courier that is about to leave, the second sees what the first did, on a database with several writers too.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import Session

from terrace.errors import Limited
from terrace.jobs.base import Jobs
from terrace.storage import after_commit
from terrace.types import Scope, new_id, now
from terrace.webhooks.bell import Bell

log = logging.getLogger(__name__)

DELIVER = "webhooks.deliver"
ONCE = "once:"  # begins a lane of addresses that were named for one event

PUT = text(
    "INSERT INTO webhook_deliveries (id, tenant_id, lane, url, event_id, type, body, state, attempts, failures, "
    "tries, created_at, next_at, until) VALUES (:id, :tenant, :lane, :url, :event, :type, :body, 'queued', 0, 0, '[]', "
    ":now, :now, :until)"
)
CALL = text(
    "INSERT INTO webhook_couriers (tenant_id, lane, called_at) VALUES (:tenant, :lane, :now) "
    "ON CONFLICT (tenant_id, lane) DO UPDATE SET called_at = :now RETURNING job_id, job_at"
)
SENT = text("UPDATE webhook_couriers SET job_id = :job, job_at = :at WHERE tenant_id = :tenant AND lane = :lane")
BEGIN = text(
    "UPDATE webhook_couriers SET job_id = :job, job_at = :now WHERE tenant_id = :tenant AND lane = :lane "
    "AND (job_id = :job OR job_id IS NULL) RETURNING lane"
)
HOLD = text(
    "UPDATE webhook_couriers SET called_at = :now WHERE tenant_id = :tenant AND lane = :lane AND job_id = :job "
    "RETURNING lane"
)
FORGET = text("DELETE FROM webhook_couriers WHERE tenant_id = :tenant AND lane = :lane AND job_id IS NULL")
NEXT = text(
    "SELECT MIN(next_at) FROM webhook_deliveries WHERE tenant_id = :tenant AND lane = :lane AND state = 'queued' "
    f"AND (lane LIKE '{ONCE}%' OR EXISTS "
    "(SELECT 1 FROM webhook_endpoints WHERE id = :lane AND tenant_id = :tenant AND enabled))"
)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, as it goes over the wire."""

    id: str
    type: str
    body: str


class Outbox:
    def __init__(self, jobs: Jobs, retry_seconds: float, bell: Bell, clock: Callable[[], float] = now) -> None:
        self._jobs = jobs
        self._retry_seconds = retry_seconds
        self._bell = bell
        self._clock = clock

    def put(self, session: Session, tenant: str, lane: str, event: Event, url: str | None = None) -> str:
        """One delivery, and a courier for it. `url`: where it goes, if not to the lane's endpoint. Returns its id."""
        at = self._clock()
        row = {
            "id": new_id("dlv"), "tenant": tenant, "lane": lane, "url": url, "event": event.id, "type": event.type,
            "body": event.body, "now": at, "until": at + self._retry_seconds,
        }  # fmt: skip
        session.execute(PUT, row)
        self.call(session, tenant, lane)
        return str(row["id"])

    def call(self, session: Session, tenant: str, lane: str) -> None:
        """A courier now, unless one is on its way; one that was to come later is replaced."""
        at = self._clock()
        known = session.execute(CALL, {"tenant": tenant, "lane": lane, "now": at}).one()
        if known.job_id is None or known.job_at > at:
            self._send(session, tenant, lane, at, at)
        else:
            after_commit(session, lambda: self._bell.ring(tenant, lane))

    def begin(self, session: Session, tenant: str, lane: str, job_id: str) -> bool:
        """Whether this job is the lane's courier."""
        where = {"tenant": tenant, "lane": lane, "job": job_id, "now": self._clock()}
        return session.execute(BEGIN, where).first() is not None

    def leave(self, session: Session, tenant: str, lane: str, job_id: str) -> None:
        """The courier ends; another comes when the next delivery is due."""
        at = self._clock()
        where = {"tenant": tenant, "lane": lane}
        if session.execute(HOLD, {**where, "job": job_id, "now": at}).first() is None:
            return
        due = session.execute(NEXT, where).scalar()
        if due is None:
            self.dismiss(session, tenant, lane)
        else:
            self._send(session, tenant, lane, at, due)

    def dismiss(self, session: Session, tenant: str, lane: str) -> None:
        """The lane has no courier until one is called."""
        where = {"tenant": tenant, "lane": lane}
        session.execute(SENT, {**where, "job": None, "at": None})
        if lane.startswith(ONCE):
            session.execute(FORGET, where)

    def _send(self, session: Session, tenant: str, lane: str, at: float, due: float) -> None:
        try:
            job_id = self._jobs.enqueue(session, Scope(tenant), DELIVER, {"lane": lane}, delay=max(0.0, due - at))
        except Limited as error:
            # What happened has happened, told or not. The next event calls again, and so does the daily tidying.
            log.warning("webhook deliveries of a tenant wait: %s", error.message)
            self.dismiss(session, tenant, lane)
            return
        session.execute(SENT, {"tenant": tenant, "lane": lane, "job": job_id, "at": max(at, due)})
