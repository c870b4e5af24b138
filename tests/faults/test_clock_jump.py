"""The clocks of a server and of a worker jump by an hour, forwards and back, while others have theirs right."""

import asyncio
import os
import time
from pathlib import Path

import psycopg
import pytest
from tests.faults.slow_upstream import upstream
from tests.faults.town import nothing_lost_nothing_twice, town

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

WRONG = Path(__file__).parent / "wrong_clock"
HOUR = 3600.0
QUESTIONS = 10  # with each time on the clock
# A lease is far shorter than an hour, and longer than a busy machine holds anybody up; it is looked after every second.
LEASES = {"TERRACE_JOBS__LEASE": "30", "TERRACE_JOBS__HEARTBEAT": "1"}
SECONDS = 3.0  # for which each time stays on the clock


async def test_clocks_jump(postgres_url: str, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    async with (
        upstream(words=40, pause=0.1) as slow,
        town(tmp_path / "data", postgres_url, slow, **LEASES) as here,
    ):
        _set(clock, 0)
        path = os.pathsep.join(filter(None, (str(WRONG), os.environ.get("PYTHONPATH"))))
        await here.open("api", "worker")
        await here.open("api", "worker", PYTHONPATH=path, WALL_CLOCK=str(clock))
        asking: list[asyncio.Task[object]] = []
        for ahead in (HOUR, -HOUR, 0.0):
            for _ in range(QUESTIONS):
                asking.append(asyncio.create_task(here.ask(len(asking))))
                await asyncio.sleep(0.1)
            _set(clock, ahead)
            await asyncio.sleep(SECONDS)
        began = time.monotonic()
        async with asyncio.timeout(60):
            streams = await asyncio.gather(*asking)
        print(f"all answered {time.monotonic() - began:.1f} s after the last jump; {here.told}")
        nothing_lost_nothing_twice(postgres_url, streams)
        with psycopg.connect(postgres_url) as connection:
            told = "SELECT sum(crashes), max(finished_at) - min(created_at) FROM jobs"
            taken, spread = connection.execute(told).fetchone() or (None, HOUR)
        assert taken == 0, "nobody's work is taken for abandoned"
        assert spread < HOUR / 2, "what is stored is the time it was"


def _set(clock: Path, ahead: float) -> None:
    """In one step: it is read all the time."""
    new = clock.with_suffix(".new")
    new.write_text(str(ahead))
    new.replace(clock)
