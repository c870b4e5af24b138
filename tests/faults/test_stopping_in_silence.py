"""SIGTERM while nothing is heard of PostgreSQL: each process ends in the time that its settings give it."""

import asyncio
import time
from pathlib import Path

import pytest
from tests.faults.proxy import proxy
from tests.faults.slow_upstream import upstream
from tests.faults.test_rolling import Process
from tests.faults.town import Town
from tests.postgres import Postgres

from terrace.assembly.running import LAST_SECONDS
from terrace.storage.postgresql.engine import CONNECT

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

GRACE = 1.0
# Whoever is just about to connect gives that up by itself; the rest is for a machine that has other things to do.
BOUND = GRACE + LAST_SECONDS + CONNECT["connect_timeout"] + 10


async def test_whoever_is_asked_to_go_goes(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    async with upstream(words=10_000, pause=0.1) as slow, proxy(postgres.port) as network:
        times = {"TERRACE_JOBS__DRAIN": str(GRACE), "TERRACE_WEB__SHUTDOWN_GRACE": str(GRACE)}
        here = Town(tmp_path, network.through(postgres_url), slow, **times)
        await here.open("api", "worker", "scheduler")
        stream = asyncio.create_task(here.ask(1))
        try:
            async with asyncio.timeout(60):
                while not await _writes(postgres, postgres_url):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            network.fall_silent()
            took = await asyncio.gather(*(_stopped(process) for process in here.processes))
        finally:
            stream.cancel()
            await asyncio.gather(*(process.kill() for process in here.processes), return_exceptions=True)
    print("; ".join(f"{process.role} {seconds:.1f} s" for process, seconds in zip(here.processes, took, strict=True)))
    assert max(took) < BOUND


async def _writes(postgres: Postgres, url: str) -> bool:
    """Whether the answer has words already."""
    with postgres.connection(url) as connection:
        return connection.execute("SELECT 1 FROM job_events WHERE type = 'text' LIMIT 1").fetchone() is not None


async def _stopped(process: Process) -> float:
    began = time.monotonic()
    assert await process.stop() == 0, process.role
    return time.monotonic() - began
