"""Fan-out inside one process: who follows a job or a tenant is told what was stored, after it was stored.

A subscriber never holds more than a bounded number of events: a slow one drops them and reads the table again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from typing import NamedTuple, TypeVar

from terrace.jobs.base import EventId, JobEvent

Key = TypeVar("Key")

HELD_EVENTS = 512  # what a slow subscriber may have waiting before it must read the table


class Subscription:
    """Follows one job. `stale` says that the table knows more than `events`; it begins so."""

    def __init__(self, leave: "Callable[[Subscription], None]", look: Callable[[], None]) -> None:
        self.events: deque[JobEvent] = deque()
        self.stale = True
        self.closed = False
        self.reached: EventId | None = None  # what came up to here was read or put; None while it is being read
        self.missed = False  # somebody looked for what others had stored while it was being read
        self._news = asyncio.Event()
        self._leave = leave
        self._look = look

    def put(self, events: Iterable[JobEvent]) -> None:
        if not self.stale:
            self.events.extend(events)
            if len(self.events) > HELD_EVENTS:
                self.poke()
            elif self.reached is not None and self.events:
                self.reached = max(self.reached, self.events[-1].id)
        self._news.set()

    def poke(self) -> None:
        self.events.clear()
        self.stale = True
        self._news.set()

    def close(self) -> None:
        self.closed = True
        self._news.set()

    def listen(self) -> None:
        """From now on what is stored is also put; the caller reads the table next."""
        self.events.clear()
        self.stale = self.missed = False
        self.reached = None

    def read_to(self, at: EventId) -> None:
        """The caller has read the table up to here."""
        self.reached = max(at, self.events[-1].id) if self.events else at
        if self.missed:
            self.missed = False
            self._look()

    async def after(self, at: EventId, timeout: float) -> JobEvent | None:
        """The event that directly follows `at`, or None: read the table again."""
        while not (self.stale or self.closed):
            while self.events:
                event = self.events.popleft()
                if event.id == (at.attempt, at.seq + 1):
                    return event
                if event.id > at:
                    return None
            await self.news(timeout)
        return None

    async def news(self, timeout: float) -> None:
        """Until something was put, poked or closed; at the latest after `timeout` seconds, and then stale."""
        if not self._news.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                self.poke()
        self._news.clear()

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(self)


class Behind(NamedTuple):
    """A job that is followed, and up to where its followers have it."""

    tenant: str
    job_id: str
    at: EventId


class Hub:
    """Subscriptions by job and by tenant. `look` is called when somebody should look what others have stored."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._jobs: dict[tuple[str, str], set[Subscription]] = {}  # (tenant, job)
        self._tenants: dict[str, set[Subscription]] = {}
        self._closed = False

    def follow_job(self, tenant: str, job_id: str) -> Subscription:
        return self._follow(self._jobs, (tenant, job_id))

    def follow_tenant(self, tenant: str) -> Subscription:
        return self._follow(self._tenants, tenant)

    def publish(self, events: Mapping[tuple[str, str], Iterable[JobEvent]]) -> None:
        """Events by (tenant, job), each job's in their order."""
        for where, theirs in events.items():
            for each in self._jobs.get(where, ()):
                each.put(theirs)

    def changed(self, tenants: Iterable[str]) -> None:
        for tenant in tenants:
            for each in self._tenants.get(tenant, ()):
                each.poke()

    def poke(self, tenant: str, job_id: str) -> None:
        """The job's followers must read the table."""
        for each in self._jobs.get((tenant, job_id), ()):
            each.poke()

    def followed(self, tenant: str, job_id: str) -> bool:
        return (tenant, job_id) in self._jobs

    def tenants(self) -> list[str]:
        """Whose jobs are followed as a whole."""
        return list(self._tenants)

    def behind(self, ours: Container[str]) -> list[Behind]:
        """What may have been stored elsewhere for jobs that are followed here; not for `ours`, that only we write to.

        Who reads the table at this moment has perhaps begun too early, and is looked for again once it has read. (Were
        it to read again itself, many followers of a slow database would do nothing else.)
        """
        behind = []
        for (tenant, job_id), followers in self._jobs.items():
            if job_id not in ours:
                for each in followers:
                    each.missed = each.reached is None
                reached = [each.reached for each in followers if each.reached is not None and not each.stale]
                if reached:
                    behind.append(Behind(tenant, job_id, min(reached)))
        return behind

    def close(self) -> None:
        """Let every subscriber go; later ones are let go at once."""
        self._closed = True
        for followers in (*self._jobs.values(), *self._tenants.values()):
            for each in followers:
                each.close()

    def _follow(self, where: dict[Key, set[Subscription]], key: Key) -> Subscription:
        followers = where.setdefault(key, set())

        def leave(subscription: Subscription) -> None:
            followers.discard(subscription)
            if not followers and where.get(key) is followers:
                del where[key]

        subscription = Subscription(leave, self._look)
        subscription.closed = self._closed
        followers.add(subscription)
        return subscription
