"""The house inside a worker process of Celery; `terrace.jobs.engines.celery.app` names it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from terrace.assembly import running
from terrace.assembly.house import assemble, check
from terrace.assembly.roles import Duties
from terrace.jobs.base import Lane
from terrace.jobs.engines.celery import CeleryJobs, supervisor
from terrace.settings import Settings
from terrace.web import process


@asynccontextmanager
async def working(settings: Settings, lanes: Iterable[Lane]) -> AsyncIterator[CeleryJobs]:
    """The engine of a worker that is brought jobs of these lanes, with all that their handlers need."""
    stop = asyncio.Event()
    check(settings)
    async with assemble(settings) as house:
        assert isinstance(house.jobs, CeleryJobs)
        house.jobs.serve(lanes)
        async with running.working(house, stop, stop, Duties(doors=False, jobs=True, clock=False)):
            yield house.jobs


async def carried(settings: Settings) -> None:
    """Celery's workers of this machine, until a signal. Raises Invalid when no broker is named."""
    await supervisor.supervise(settings, process.signalled())
