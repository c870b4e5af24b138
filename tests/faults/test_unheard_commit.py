"""The answer to a commit is lost with the connection: what stands already is not written again for ever."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.faults.proxy import Proxy, proxy
from tests.postgres import Postgres

from terrace.jobs.base import Context, JobKind
from terrace.jobs.carriers import open_carrier
from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Jobs as Options
from terrace.settings import Redis
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import Scope

pytestmark = pytest.mark.faults

TOKENS = 20


@pytest.fixture
async def network(postgres: Postgres) -> AsyncIterator[Proxy]:
    async with proxy(postgres.port) as network:
        yield network


async def test_events_that_are_stored_already(network: Proxy, postgres_url: str, scope: Scope) -> None:
    async def talk(context: Context) -> None:
        for n in range(TOKENS):
            if n == TOKENS // 2:
                network.unheard = 1
            context.emit("text", {"n": n})
            await asyncio.sleep(0.05)

    jobs = LocalJobs(
        PostgreSQLDatabase(network.through(postgres_url), connections=4), Options(), [JobKind("talk", talk)]
    )
    jobs.carry(open_carrier(Redis()))
    await jobs.start()
    job_id = await jobs.database.write(lambda session: jobs.enqueue(session, scope, "talk", {}))
    job = await jobs.wait(scope, job_id, timeout=20)
    assert network.unheard == 0, "an answer was lost"
    assert (job.state, job.attempt, job.failures) == ("succeeded", 1, 0)
    told = [event.data["n"] async for event in jobs.events(scope, job_id) if event.type == "text"]
    assert told == list(range(TOKENS))
    await jobs.close()
    await jobs.database.close()
