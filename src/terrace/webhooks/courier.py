"""The handler of `webhooks.deliver`: serves one lane until nothing is due, a few deliveries at a time.

An attempt that is cut off before it is written down is made again: at least once, with the same id.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlmodel import Session

from terrace import settings
from terrace.errors import Internal, Invalid, TerraceError
from terrace.jobs.base import Context, Done, Job, JobKind
from terrace.outbound import Outbound
from terrace.storage import Database, after_commit
from terrace.types import Scope, now
from terrace.webhooks import signing, store
from terrace.webhooks.base import Sealer
from terrace.webhooks.bell import Bell
from terrace.webhooks.outbox import DELIVER, Outbox
from terrace.webhooks.store import Load, Parcel
from terrace.webhooks.verdicts import ANSWER_BYTES, BACKOFF, Tried, answered, unanswered

log = logging.getLogger(__name__)

PURPOSE = "webhooks"  # what secrets are sealed for
AT_ONCE = 8  # deliveries to one receiver at a time
TAKEN = 64  # read at a time
ROUND_SECONDS = 30.0  # then another lane may have the place
GRACE_SECONDS = 2.0  # for attempts under way when we stop; what is cut off is made again
LINGER_SECONDS = 0.5  # for the next event: a stream of them needs one courier, not one each
FAILURES = 1000  # of the courier itself, such as a database that is away; receivers' don't count here
CRASHES = 20


@dataclass(slots=True)
class _Round:
    """One courier at work."""

    context: Context
    lane: str
    load: Load = field(default_factory=lambda: Load([], []))
    waiting: deque[Parcel] = field(default_factory=deque)
    flying: dict["asyncio.Task[Tried]", str] = field(default_factory=dict)
    delivered: int = 0
    failed: int = 0

    @property
    def tenant(self) -> str:
        return self.context.scope.tenant


class Courier:
    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        outbound: Outbound,
        sealer: Sealer,
        options: settings.Webhooks,
        bell: Bell,
        *,
        changed: Callable[[], None] = lambda: None,
        backoff: Sequence[float] = BACKOFF,
        clock: Callable[[], float] = now,
    ) -> None:
        """`changed` is called when an endpoint was switched off; `backoff` are seconds between attempts."""
        self._database = database
        self._outbox = outbox
        self._outbound = outbound
        self._sealer = sealer
        self._options = options
        self._bell = bell
        self._changed = changed
        self._backoff = backoff
        self._clock = clock
        self._stopping = False

    def stop(self) -> None:
        """Begin nothing more: whoever works next goes on."""
        self._stopping = True

    def kind(self) -> JobKind:
        return JobKind(
            DELIVER,
            self.deliver,
            timeout=ROUND_SECONDS + 4 * self._options.timeout + 60,
            max_failures=FAILURES,
            max_crashes=CRASHES,
            on_end=self._ended,
        )

    async def deliver(self, context: Context) -> Done:
        lane = context.payload.get("lane")
        if not isinstance(lane, str):
            raise Invalid("The payload needs a lane.", code="bad_payload")
        tenant = context.scope.tenant
        if not await context.write(partial(self._outbox.begin, tenant=tenant, lane=lane, job_id=context.job_id)):
            return Done({"superseded": True})
        work = _Round(context, lane)
        try:
            await self._serve(work)
        finally:
            self._bell.leave(tenant, lane)
            await _stop(work)
        leave = partial(self._outbox.leave, tenant=tenant, lane=lane, job_id=context.job_id)
        return Done({"delivered": work.delivered, "failed": work.failed}, commit=leave)

    def _ended(self, session: Session, scope: Scope, job: Job) -> None:
        """It was cancelled, or died too often: the next event calls another."""
        lane = job.payload.get("lane")
        if isinstance(lane, str) and self._outbox.begin(session, scope.tenant, lane, job.id):
            self._outbox.dismiss(session, scope.tenant, lane)

    async def _serve(self, work: _Round) -> None:
        ends = time.monotonic() + ROUND_SECONDS
        while time.monotonic() < ends and not self._stopping:
            rung = self._bell.listen(work.tenant, work.lane)  # first listen, then look
            if not work.waiting and len(work.flying) < AT_ONCE:
                await self._fetch(work)
            while work.waiting and len(work.flying) < AT_ONCE:
                parcel = work.waiting.popleft()
                work.flying[asyncio.create_task(self._send(parcel, work.load))] = parcel.id
            if not await self._happened(work, rung) and not work.flying:
                return
        if work.flying:
            await asyncio.wait(work.flying, timeout=GRACE_SECONDS if self._stopping else None)
            await self._land(work)

    async def _happened(self, work: _Round, rung: asyncio.Event) -> bool:
        """Whether an attempt ended or an event came in before `LINGER_SECONDS` were over."""
        ringing = asyncio.ensure_future(rung.wait())
        try:
            done, _ = await asyncio.wait(
                [*work.flying, ringing], timeout=LINGER_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ringing.cancel()
        await self._land(work)
        return bool(done)

    async def _fetch(self, work: _Round) -> None:
        """What is due and not under way already."""
        limit = TAKEN + len(work.flying)
        work.load = await self._database.read(store.load, work.tenant, work.lane, self._clock(), limit)
        flying = set(work.flying.values())
        work.waiting.extend(each for each in work.load.parcels if each.id not in flying)

    async def _land(self, work: _Round) -> None:
        """Write down all that have ended."""
        ended = [task for task in work.flying if task.done()]
        if not ended:
            return
        tries = [task.result() for task in ended]
        off = await work.context.write(lambda session: self._record(session, work, tries))
        for task in ended:
            del work.flying[task]
        work.delivered += sum(each.delivered for each in tries)
        work.failed += sum(not each.delivered for each in tries)
        if off:
            log.warning("the webhook endpoint %s was switched off: %s", work.lane, tries[-1].error)
            work.waiting.clear()

    def _record(self, session: Session, work: _Round, tries: Sequence[Tried]) -> bool:
        """Whether the endpoint was switched off. What is known of it is forgotten before and after the commit, so that
        nobody who comes next puts in something for it."""
        off = store.record(session, tenant=work.tenant, lane=work.lane, tries=tries, backoff=self._backoff)
        if off:
            self._changed()
            after_commit(session, self._changed)
        return off

    async def _send(self, parcel: Parcel, load: Load) -> Tried:
        at, begun = self._clock(), time.monotonic()
        try:
            keys = [self._sealer.unseal(PURPOSE, each) for each in load.secrets]
            answer = await self._outbound.fetch(
                "POST",
                parcel.url,
                headers=signing.headers(keys, parcel.event_id, int(at), parcel.body),
                body=parcel.body,
                max_bytes=ANSWER_BYTES,
                timeout=self._options.timeout,
                truncate=True,
            )
        except TerraceError as told:
            return unanswered(parcel.id, at, time.monotonic() - begun, told)
        except Exception:  # a fault of ours with one delivery must not hold up those behind it
            log.exception("delivering %s failed", parcel.id)
            error = Internal("Something went wrong here while sending. The log has the details.")
            return unanswered(parcel.id, at, time.monotonic() - begun, error)
        return answered(parcel.id, at, time.monotonic() - begun, parcel.url, answer)


async def _stop(work: _Round) -> None:
    for task in work.flying:
        task.cancel()
    await asyncio.gather(*work.flying, return_exceptions=True)
