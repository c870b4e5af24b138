"""Events out: emitted by the rooms above inside their transactions, carried by couriers."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlmodel import Session

from terrace import settings
from terrace.errors import Missing
from terrace.jobs.base import FINAL, Job, JobKind, Jobs
from terrace.outbound import Outbound
from terrace.outbound.urls import host_of
from terrace.storage import Database
from terrace.types import Scope, moment, new_id, now
from terrace.webhooks import events, signing, store
from terrace.webhooks.base import Sealer
from terrace.webhooks.bell import Bell
from terrace.webhooks.courier import PURPOSE, Courier
from terrace.webhooks.outbox import DELIVER, ONCE, Event, Outbox
from terrace.webhooks.tables import SignerRow
from terrace.webhooks.verdicts import BACKOFF

MAX_BODY = 16 * 1024  # bytes of an event's data
MAX_BRIEF = 500  # bytes of a value that is kept when the whole is too long
MAX_TENANTS = 10_000  # whose endpoints are remembered
PAUSE_SECONDS = 0.05  # between two batches of removals, for others to write
STALLED_SECONDS = 300.0  # a courier is never this late while anybody works
DAY = 86_400.0

Wanting = tuple[tuple[str, tuple[str, ...]], ...]  # (id, filters) of each endpoint that is switched on


class Webhooks:
    """`emit` costs a look into a dictionary where a tenant has no endpoint."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        outbound: Outbound,
        sealer: Sealer,
        options: settings.Webhooks,
        *,
        backoff: Sequence[float] = BACKOFF,
        clock: Callable[[], float] = now,
    ) -> None:
        """`backoff`: seconds before each further attempt; the last again and again."""
        self._database = database
        self._jobs = jobs
        self._sealer = sealer
        self._options = options
        self._clock = clock
        bell = Bell()
        self.outbox = Outbox(jobs, options.retry_hours * 3600, bell, clock)
        self._courier = Courier(
            database, self.outbox, outbound, sealer, options, bell, changed=self.changed, backoff=backoff, clock=clock
        )
        self._wanting: dict[str, Wanting] = {}
        self._version = 0
        self._unwatch: Callable[[], None] | None = None

    def kinds(self) -> tuple[JobKind, ...]:
        return (self._courier.kind(),)

    def start(self) -> None:
        """Hear when other processes change endpoints."""
        if self._unwatch is None:
            self._unwatch = self._database.watch(self.changed)

    def drain(self) -> None:
        """We are about to stop: couriers come to an end and leave the rest to those who work next."""
        self._courier.stop()

    def close(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    def changed(self) -> None:
        """Endpoints are others now."""
        self._version += 1
        self._wanting.clear()

    # -- emitting

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None:
        """As `Emitter.emit`."""
        wanting = self._wanted(session, scope.tenant, type)
        if wanting:
            event = self.event(type, data)
            for endpoint_id in wanting:
                self.outbox.put(session, scope.tenant, endpoint_id, event)

    def send_to(self, session: Session, scope: Scope, url: str, type: str, data: dict[str, Any]) -> None:
        """One event to an address named for it, which `Outbound.check` has seen; signed with the tenant's secret."""
        self.signer(session, scope.tenant)
        self.outbox.put(session, scope.tenant, f"{ONCE}{host_of(url)}", self.event(type, data), url)

    def event(self, type: str, data: dict[str, Any]) -> Event:
        """A new one. Raises KeyError for a type that `events.EVENTS` does not know."""
        events.EVENTS[type]
        return Event(new_id("evt"), type, _body(type, data, self._clock()))

    def signer(self, session: Session, tenant: str) -> str:
        """The sealed secret of the tenant's one-off deliveries; made when it is first needed."""
        sealed = store.signer(session, tenant)
        if sealed is None:
            sealed = self._sealer.seal(PURPOSE, signing.new_secret())
            session.add(SignerRow(tenant_id=tenant, secret=sealed, created_at=self._clock()))
        return sealed

    async def signing_secret(self, scope: Scope) -> str:
        """What one-off deliveries of the tenant are signed with."""
        return self._sealer.unseal(PURPOSE, await self._database.write(self.signer, scope.tenant))

    # -- jobs, told by the jobs room

    def wants_job(self, session: Session, scope: Scope, kind: str) -> bool:
        """Whether anybody is told of jobs of this kind."""
        return kind != DELIVER and bool(
            self._wanted(session, scope.tenant, "job.succeeded") or self._wanted(session, scope.tenant, "job.failed")
        )

    def job_ended(self, session: Session, scope: Scope, job: Job) -> None:
        """A job has ended for good. Cancelling is a person's act, and no event."""
        if job.state in FINAL and job.state != "cancelled" and job.kind != DELIVER:
            self.emit(session, scope, f"job.{job.state}", _told(job))

    # -- keeping house

    async def tidy(self) -> None:
        """Removes what is older than `keep_days`, and calls couriers for what was left lying."""
        before = self._clock() - self._options.keep_days * DAY
        removed = store.REMOVED
        while removed == store.REMOVED:
            removed = await self._database.write(store.remove_old, before)
            await asyncio.sleep(PAUSE_SECONDS)
        for tenant, lane, job_id in await self._database.read(store.stalled, self._clock() - STALLED_SECONDS):
            if not await self._on_its_way(tenant, job_id):
                await self._database.write(self._call_anew, tenant, lane, job_id)

    async def _on_its_way(self, tenant: str, job_id: str | None) -> bool:
        try:
            return (
                job_id is not None and (await self._jobs.get(Scope(tenant), job_id, everyone=True)).state not in FINAL
            )
        except Missing:
            return False

    def _call_anew(self, session: Session, tenant: str, lane: str, job_id: str | None) -> None:
        if job_id is None or self.outbox.begin(session, tenant, lane, job_id):
            self.outbox.dismiss(session, tenant, lane)
            self.outbox.call(session, tenant, lane)

    # -- inside

    def _wanted(self, session: Session, tenant: str, type: str) -> list[str]:
        """Ids of the endpoints that want this type."""
        known = self._wanting.get(tenant)
        if known is None:
            version = self._version
            known = tuple(store.wanting(session, tenant))
            if len(self._wanting) >= MAX_TENANTS:
                self._wanting.clear()
            if version == self._version:  # else somebody changed them while we read
                self._wanting[tenant] = known
        return [endpoint_id for endpoint_id, filters in known if events.wants(filters, type)] if known else []


def _body(type: str, data: dict[str, Any], at: float) -> str:
    told = {"type": type, "timestamp": moment(at).isoformat().replace("+00:00", "Z")}
    encoded = msgspec.json.encode({**told, "data": data})
    if len(encoded) > MAX_BODY:
        brief = {name: value for name, value in data.items() if len(msgspec.json.encode(value)) <= MAX_BRIEF}
        encoded = msgspec.json.encode({**told, "data": {**brief, "abridged": True}})
    return encoded.decode()


def _told(job: Job) -> dict[str, Any]:
    error = None if job.error is None else {"code": job.error.code, "message": job.error.message}
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "error": error,
        "children": job.children,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
    }
