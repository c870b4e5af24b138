"""Everything is killed in the same moment, and started again: servers, worker, scheduler, PostgreSQL and Redis."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.slow_upstream import upstream
from tests.faults.test_jobs_postgresql import _crash
from tests.faults.town import nothing_lost_nothing_twice, town
from tests.postgres import Postgres, running
from tests.redis_server import redis_server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

QUESTIONS = 40


@pytest.fixture
def server() -> Iterator[Postgres]:
    with running() as server:
        yield server


async def test_everything_is_killed_at_once(server: Postgres, tmp_path: Path) -> None:
    url = server.create()
    with redis_server() as redis:
        async with (
            upstream(words=40, pause=0.1) as slow,
            town(tmp_path, url, slow, TERRACE_REDIS__URL=redis.url) as here,
        ):
            await here.open("api", "api", "worker", "scheduler")
            asking = []
            for number in range(QUESTIONS):
                asking.append(asyncio.create_task(here.ask(number)))
                await asyncio.sleep(0.05)
            gone = (process.kill() for process in here.processes)
            await asyncio.gather(asyncio.to_thread(redis.kill), asyncio.to_thread(_crash, server), *gone)
            began = time.monotonic()
            server.start()
            redis.start()
            await asyncio.gather(*(process.start() for process in here.processes))
            started = time.monotonic() - began
            async with asyncio.timeout(90):
                streams = await asyncio.gather(*asking)
            took = time.monotonic() - began
            print(f"started in {started:.1f} s, all answered {took:.1f} s after the kill; {here.told}")
            nothing_lost_nothing_twice(url, streams)
