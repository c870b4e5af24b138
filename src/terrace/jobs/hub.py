"""Fan-out inside one process: who follows a job or a tenant is told what was stored, after it was stored.

A subscriber never holds more than a bounded number of events: a slow one drops them and reads the table again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from terrace.jobs.base import EventId, JobEvent

HELD_EVENTS = 512  # what a slow subscriber may have waiting before it must read the table


class Subscription:
    """Follows one job. `stale` says that the table knows more than `events`; it begins so."""

    def __init__(self, leave: "Callable[[Subscription], None]") -> None:
        self.events: deque[JobEvent] = deque()
        self.stale = True
        self.closed = False
        self._news = asyncio.Event()
        self._leave = leave

    def put(self, events: Iterable[JobEvent]) -> None:
        if not self.stale:
            self.events.extend(events)
            if len(self.events) > HELD_EVENTS:
                self.poke()
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
        self.stale = False

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


class Hub:
    """Subscriptions by job and by tenant."""

    def __init__(self) -> None:
        self._jobs: dict[str, set[Subscription]] = {}
        self._tenants: dict[str, set[Subscription]] = {}
        self._closed = False

    def follow_job(self, job_id: str) -> Subscription:
        return self._follow(self._jobs, job_id)

    def follow_tenant(self, tenant: str) -> Subscription:
        return self._follow(self._tenants, tenant)

    def publish(self, job_id: str, events: Iterable[JobEvent]) -> None:
        for each in self._jobs.get(job_id, ()):
            each.put(events)

    def changed(self, tenant: str) -> None:
        for each in self._tenants.get(tenant, ()):
            each.poke()

    def poke(self, without: Iterable[str] = ()) -> None:
        """Another process has written: everything may have changed, save the jobs that only we write to."""
        known = set(without)
        for job_id, followers in self._jobs.items():
            if job_id not in known:
                for each in followers:
                    each.poke()
        for followers in self._tenants.values():
            for each in followers:
                each.poke()

    def close(self) -> None:
        """Let every subscriber go; later ones are let go at once."""
        self._closed = True
        for followers in (*self._jobs.values(), *self._tenants.values()):
            for each in followers:
                each.close()

    def _follow(self, where: dict[str, set[Subscription]], key: str) -> Subscription:
        followers = where.setdefault(key, set())

        def leave(subscription: Subscription) -> None:
            followers.discard(subscription)
            if not followers and where.get(key) is followers:
                del where[key]

        subscription = Subscription(leave)
        subscription.closed = self._closed
        followers.add(subscription)
        return subscription
