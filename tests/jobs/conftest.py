"""Engines over the test's database, closed at the end."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from terrace.jobs.base import JobKind
from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Jobs as Options
from terrace.storage import Database

Start = Callable[..., Awaitable[LocalJobs]]


@pytest.fixture
async def start(database: Database) -> AsyncIterator[Start]:
    engines: list[LocalJobs] = []

    async def start(*kinds: JobKind, work: bool = True, **settings: Any) -> LocalJobs:
        quick = {"backoff": 0.02, "backoff_max": 0.05, "lease": 60, "heartbeat": 1, "drain": 0.1, "cpu_slots": 2}
        engine = LocalJobs(database, Options(**(quick | settings)), kinds)
        engines.append(engine)
        if work:
            await engine.start()
        return engine

    yield start
    for engine in engines:
        await engine.close()
