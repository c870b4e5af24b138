"""The part of `Jobs` that every engine shares: rows in, rows out, events followed. Engines add what runs them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlmodel import Session

from terrace import settings
from terrace.errors import Invalid, Limited, Unavailable
from terrace.jobs import endings, leaving, store
from terrace.jobs.base import FINAL, EventId, Job, JobEvent, JobKind, OnDead, State
from terrace.jobs.carriers import Carrier, TableCarrier
from terrace.jobs.endings import Rules
from terrace.jobs.hub import Hub
from terrace.jobs.journal import Journal, Notice
from terrace.jobs.sight import Sight
from terrace.jobs.tail import LOOKBACK_SECONDS, Tail
from terrace.storage import Database
from terrace.types import Scope, now

FOLLOW_SECONDS = 60.0  # a follower reads the table itself this often; the tail does for all of them, much oftener
CHANGES_SECONDS = 5.0  # the same for changes of a tenant's jobs
COALESCE_SECONDS = 0.1  # changes of a tenant's jobs are told this often at most
TAIL_SECONDS = 0.02  # what others wrote is read this often at most
CARRIED_SECONDS = 0.5  # the same while a carrier brings it


class JobService:
    """`kinds` may grow (`register`) until the first job is put in."""

    def __init__(self, database: Database, options: settings.Jobs, kinds: Iterable[JobKind] = ()) -> None:
        self.database = database
        self.settings = options
        self.kinds: dict[str, JobKind] = {kind.name: kind for kind in kinds}
        self.rules = Rules(self.kinds, options)
        self.hub = Hub(self.others_wrote)
        self.carrier: Carrier = TableCarrier()
        self.tail = Tail(database, self.hub, self.ours, self._tail_pause)
        self._unwatch: Callable[[], None] | None = None
        self._room: dict[str, int] = {}  # how many more jobs a tenant may put in before we count again

    def register(self, kind: JobKind) -> None:
        self.kinds[kind.name] = kind

    def carry(self, carrier: Carrier) -> None:
        """Have events told to other processes this way. Before anything is put in, followed or begun."""
        self.carrier = carrier

    def on_final(
        self, tell: OnDead, wanted: Callable[[Session, Scope, str], bool] = lambda session, scope, kind: True
    ) -> None:
        """Have `tell` called in the transaction that ends a job for good, unless the job is a part of another.

        `wanted` (session, scope, kind) is asked first, so that nothing is read where nobody listens.
        """
        self.rules.on_final, self.rules.tells_final = tell, wanted

    # -- putting in

    def enqueue(
        self,
        session: Session,
        scope: Scope,
        kind: str,
        payload: dict[str, Any],
        *,
        priority: int = 0,
        delay: float = 0.0,
        idempotency_key: str | None = None,
        parent_id: str | None = None,
    ) -> str:
        declared = self.kind(kind)
        if idempotency_key is not None:
            idempotency_key = store.own_key(scope, idempotency_key)
            known = store.same(session, scope, kind, idempotency_key, payload)
            if known is not None:
                return known
        self.make_room(session, scope, 1)
        keys = () if idempotency_key is None else (idempotency_key,)
        journal = self.journal(session)
        return store.insert(
            session, scope, journal, declared, [payload], priority=priority, delay=delay, keys=keys, parent_id=parent_id
        )[0]

    def enqueue_many(
        self,
        session: Session,
        scope: Scope,
        kind: str,
        payloads: Sequence[dict[str, Any]],
        *,
        priority: int = 0,
        delay: float = 0.0,
        parent_id: str | None = None,
    ) -> list[str]:
        self.make_room(session, scope, len(payloads))
        journal = self.journal(session)
        return store.insert(
            session, scope, journal, self.kind(kind), payloads, priority=priority, delay=delay, parent_id=parent_id
        )

    def kind(self, name: str) -> JobKind:
        if name not in self.kinds:
            known = ", ".join(sorted(self.kinds)) or "none"
            raise Invalid(f"There is no kind of job called {name[:100]!r}. Known: {known}.", code="unknown_kind")
        return self.kinds[name]

    def make_room(self, session: Session, scope: Scope, count: int) -> None:
        """Count the tenant's waiting jobs, but seldom while there is plenty of room."""
        room = self._room.get(scope.tenant, 0)
        if room < count:
            counts = store.counts(session, scope)
            waiting = counts["queued"] + counts["waiting"]
            left = self.settings.max_queued - waiting
            if left < count:
                raise Limited(
                    f"{waiting} jobs are waiting already, and {self.settings.max_queued} may. Try again later.",
                    code="queue_full",
                    retry_after=30,
                )
            if len(self._room) > 10_000:
                self._room.clear()
            room = max(count, left // 10)
        self._room[scope.tenant] = room - count

    # -- reading

    def sight(self, scope: Scope, everyone: bool) -> Sight:
        shared = [kind.name for kind in self.kinds.values() if kind.shared]
        return Sight(scope.user, shared, everyone)

    async def get(self, scope: Scope, job_id: str, *, everyone: bool = False) -> Job:
        sight = self.sight(scope, everyone)
        job, position, wait = await self.database.read(store.read_queued, scope, job_id, sight)
        return replace(job, position=position, expected_wait=wait)

    async def list(
        self,
        scope: Scope,
        *,
        state: State | None = None,
        kind: str | None = None,
        parent_id: str | None = None,
        dead: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
        everyone: bool = False,
    ) -> tuple[list[Job], str | None]:
        wanted: dict[str, Any] = {"state": state, "kind": kind, "parent_id": parent_id, "dead": dead}
        sight = self.sight(scope, everyone)
        return await self.database.read(store.page, scope, sight, **wanted, limit=limit, cursor=cursor)

    async def counts(self, scope: Scope) -> dict[str, int]:
        """{queued, waiting, running, failed}: how many jobs of the tenant are in each."""
        return await self.database.read(store.counts, scope)

    async def cancel(self, scope: Scope, job_id: str, *, everyone: bool = False) -> Job:
        sight = self.sight(scope, everyone)
        return await self.database.write(
            lambda session: endings.cancel(session, self.journal(session), self.rules, scope, job_id, sight)
        )

    async def retry(self, scope: Scope, job_id: str, *, everyone: bool = False) -> Job:
        sight = self.sight(scope, everyone)
        return await self.database.write(
            lambda session: endings.retry(session, self.journal(session), self.rules, scope, job_id, sight)
        )

    def conclude(self, session: Session, scope: Scope, job_id: str, result: dict[str, Any]) -> None:
        """In the caller's transaction: the last child of a parent whose room `concludes` it has ended."""
        endings.conclude(session, self.journal(session), self.rules, scope, job_id, result)

    def tell_progress(self, session: Session, scope: Scope, job_id: str, done: int, total: int) -> None:
        """How far such a parent is. Now and then is enough."""
        endings.tell_progress(session, self.journal(session), scope, job_id, done, total)

    async def wait(self, scope: Scope, job_id: str, timeout: float | None = None, *, everyone: bool = False) -> Job:
        self.listen()
        async with asyncio.timeout(timeout):
            return await self._until_final(scope, job_id, self.sight(scope, everyone))

    def erase_user(self, session: Session, user_id: str) -> None:
        """In a transaction that erases a person: `leaving.erase_user` with the kinds there are."""
        leaving.erase_user(session, user_id, [kind.name for kind in self.kinds.values() if kind.shared])

    # -- following

    async def events(
        self, scope: Scope, job_id: str, after: EventId | None = None, *, everyone: bool = False
    ) -> AsyncGenerator[JobEvent, None]:
        self.listen()
        sight = self.sight(scope, everyone)
        at = after or store.BEGINNING
        with self.hub.follow_job(scope.tenant, job_id) as following:
            while not following.closed:
                following.listen()  # first listen, then read; what comes twice is sorted out by its id
                events, attempt, ended = await self.database.read(store.events_after, scope, job_id, at, sight)
                for event in events:
                    at = event.id
                    if event.type != "done" or (ended and at.attempt == attempt):
                        yield event
                if len(events) == store.EVENT_PAGE:
                    continue
                if ended:
                    return
                following.read_to(at)
                while (live := await following.after(at, FOLLOW_SECONDS)) is not None:
                    at = live.id
                    yield live
                    if live.type == "done":
                        return

    async def changes(self, scope: Scope, *, everyone: bool = False) -> AsyncGenerator[Job, None]:
        self.listen()
        sight = self.sight(scope, everyone)
        since = now()
        told: dict[str, float] = {}
        with self.hub.follow_tenant(scope.tenant) as following:
            while not following.closed:
                changed = await self.database.read(store.changed_since, scope, sight, since - LOOKBACK_SECONDS)
                for moment, job in changed:
                    if told.get(job.id) != moment:
                        told[job.id] = moment
                        yield job
                since = max([since, *(moment for moment, _ in changed)])
                told = {job_id: moment for job_id, moment in told.items() if moment >= since - LOOKBACK_SECONDS}
                await following.news(CHANGES_SECONDS)
                await asyncio.sleep(COALESCE_SECONDS)

    # -- for engines

    def journal(self, session: Session) -> Journal:
        return Journal(session, self.told)

    def listen(self) -> None:
        """Hear what other processes write, from the first time somebody follows or works."""
        if self._unwatch is None:
            self._unwatch = self.database.watch(self.others_wrote)
            self.tail.start()
            self.carrier.start(self)

    def ours(self) -> Collection[str]:
        """Jobs whose events only this process writes now."""
        return ()

    def others_wrote(self) -> None:
        """The database says so; what, nobody knows."""
        self.tail.wake()

    async def close(self) -> None:
        """Let subscribers go. The database stays open."""
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        self.hub.close()
        await self.tail.close()
        await self.carrier.close()

    def told(self, notice: Notice) -> None:
        """On the event loop, after the commit."""
        self.heard(notice)
        self.carrier.tell(notice)

    # -- the carrier's ears

    def follows(self, tenant: str, job_id: str) -> bool:
        return self.hub.followed(tenant, job_id)

    def heard(self, notice: Notice) -> None:
        self.hub.publish(notice.events)
        self.hub.changed(notice.tenants)

    def missed(self, tenant: str, job_id: str) -> None:
        self.hub.poke(tenant, job_id)

    def uncertain(self) -> None:
        self.tail.wake()

    def _tail_pause(self) -> float:
        return CARRIED_SECONDS if self.carrier.carries else TAIL_SECONDS

    async def _until_final(self, scope: Scope, job_id: str, sight: Sight) -> Job:
        with self.hub.follow_job(scope.tenant, job_id) as following:
            while True:
                following.listen()
                job, at = await self.database.read(store.read_at, scope, job_id, sight)
                if job.state in FINAL:
                    return job
                if following.closed:
                    raise Unavailable("The server is shutting down; the job goes on later.", code="shutting_down")
                following.read_to(at)
                while (live := await following.after(at, FOLLOW_SECONDS)) is not None:
                    at = live.id
                    if live.type == "done":
                        break
