"""The room with real jobs, a real way out to loopback, quick retries, and a clock that can be set ahead."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from terrace import settings
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller
from terrace.accounts.roles import PERMISSIONS
from terrace.accounts.secret import Secret
from terrace.jobs.engines.local import LocalJobs
from terrace.outbound import open_outbound
from terrace.storage import Database
from terrace.types import Scope, now
from terrace.webhooks.base import Delivery, DeliveryDetail, DeliveryState
from terrace.webhooks.endpoints import Endpoints
from terrace.webhooks.service import Webhooks

SECRET = "kq2Vn8sJw0ZpXy5RtLb7Hd3GfMc9Ea1U"


@dataclass
class Clock:
    ahead: float = 0.0

    def __call__(self) -> float:
        return now() + self.ahead


@dataclass
class Room:
    database: Database
    options: settings.Webhooks
    backoff: tuple[float, ...] = (0.02,)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.jobs = LocalJobs(self.database, settings.Jobs(backoff=0.05))
        self.outbound = open_outbound(settings.Outbound(allow=("127.0.0.1",)))
        sealer = Secret(SECRET)
        self.webhooks = Webhooks(
            self.database, self.jobs, self.outbound, sealer, self.options, backoff=self.backoff, clock=self.clock
        )
        self.endpoints = Endpoints(
            self.database, self.webhooks, self.outbound, sealer, Audit(self.database), self.options, clock=self.clock
        )
        for kind in self.webhooks.kinds():
            self.jobs.register(kind)
        self.jobs.on_final(self.webhooks.job_ended, self.webhooks.wants_job)

    async def close(self) -> None:
        await self.jobs.close()
        await self.outbound.close()

    async def emit(self, scope: Scope, type: str = "document.ready", **data: Any) -> None:
        await self.database.write(self.webhooks.emit, scope, type, data)

    async def add(self, scope: Scope, url: str, **more: Any) -> tuple[str, str]:
        """(id, secret)"""
        endpoint, secret = await self.endpoints.create(caller(scope), url=url, **more)
        return endpoint.id, secret

    async def log(self, scope: Scope, endpoint_id: str) -> list[Delivery]:
        return list((await self.endpoints.deliveries(scope, endpoint_id, limit=200))[0])

    async def log_in(self, scope: Scope, endpoint_id: str, state: DeliveryState) -> list[Delivery]:
        """Its deliveries in a state."""
        return list((await self.endpoints.deliveries(scope, endpoint_id, state=state, limit=200))[0])

    async def last(self, scope: Scope, endpoint_id: str) -> DeliveryDetail:
        return await self.endpoints.delivery(scope, endpoint_id, (await self.log(scope, endpoint_id))[0].id)

    async def settled(self, scope: Scope, endpoint_id: str, *, tries: int = 1) -> Delivery:
        """The latest delivery, once it has ended or was tried so often."""

        async def look() -> Delivery | None:
            found = await self.log(scope, endpoint_id)
            return found[0] if found and (found[0].state != "queued" or found[0].attempts >= tries) else None

        return await eventually(look)


async def eventually(look: Callable[[], Awaitable[Any]], within: float = 20) -> Any:
    """What `look` finds, once it finds something."""
    async with asyncio.timeout(within):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.01)


def caller(scope: Scope) -> Caller:
    return Caller(scope, PERMISSIONS, "owner", "session")


class Rooms:
    """Opens rooms that are closed with the test."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.opened: list[Room] = []

    async def open(self, *, backoff: tuple[float, ...] = (0.02,), work: bool = True, **options: Any) -> Room:
        room = Room(self.database, settings.Webhooks(**options), backoff)
        self.opened.append(room)
        if work:
            await room.jobs.start()
        return room


@pytest.fixture
async def rooms(database: Database) -> AsyncIterator[Rooms]:
    rooms = Rooms(database)
    yield rooms
    for room in rooms.opened:
        await room.close()


@pytest.fixture
async def room(rooms: Rooms) -> Room:
    return await rooms.open()
