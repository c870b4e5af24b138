"""Three schedulers on one PostgreSQL: one leads; killed, another does; and what fell due meanwhile is begun once."""

import asyncio
import os
import time
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.faults.test_rolling import Process

pytestmark = pytest.mark.faults


async def leaders(processes: list[Process]) -> list[Process]:
    async with httpx.AsyncClient(timeout=30, verify=False) as client:
        said = [(await client.get(f"http://127.0.0.1:{each.port}/ready")).json() for each in processes]
    return [
        process
        for process, told in zip(processes, said, strict=True)
        if told["checks"]["clock"] == "ok: this process leads"
    ]


async def led(processes: list[Process], within: float) -> Process:
    async with asyncio.timeout(within):
        while len(found := await leaders(processes)) != 1:
            assert not found, "never two"
            await asyncio.sleep(0.5)
    return found[0]


@pytest.mark.timeout(400)
async def test_a_killed_leader_is_followed_by_another(postgres_url: str, tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")},
        "TERRACE_DATA": str(tmp_path / "data"),
        "TERRACE_STORAGE__URL": postgres_url,
        "TERRACE_MODELS__DISCOVER": "false",
        "TERRACE_KNOWLEDGE__EMBEDDING__MODEL": "none",
    }
    processes = [Process("scheduler", environment) for _ in range(3)]
    try:
        await processes[0].start()
        first = await led(processes[:1], 60)
        for process in processes[1:]:
            await process.start()
        assert await leaders(processes) == [first]

        await first.kill()
        killed = time.monotonic()
        with psycopg.connect(postgres_url, autocommit=True) as connection:  # something falls due while nobody leads
            connection.execute("UPDATE schedules SET next_at = extract(epoch FROM now()) - 1")
            begun = connection.execute("SELECT count(*) FROM schedule_runs").fetchone()
            others = [each for each in processes if each is not first]
            second = await led(others, 120)
            waited = time.monotonic() - killed
            due = connection.execute("SELECT count(*) FROM schedules WHERE enabled").fetchone()
            assert begun is not None
            assert due is not None
            runs, each_once = "SELECT count(*) FROM schedule_runs", (begun[0] + due[0],)
            async with asyncio.timeout(60):
                while (connection.execute(runs).fetchone() or begun) < each_once:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            await asyncio.sleep(2)
            assert connection.execute(runs).fetchone() == each_once, "each due schedule was begun once"
        assert second in others
        assert waited > 15, "not before the lease was over"

        third = next(each for each in others if each is not second)
        assert await second.stop() == 0
        assert await led([third], 30) is third, "who ends well hands the lease on"
    finally:
        for process in processes:
            await process.stop()
