"""The network between Terrace and PostgreSQL is cut: connections are reset, or nothing is heard any more."""

import asyncio
import time
from pathlib import Path

import pytest
from tests.faults.proxy import proxy
from tests.faults.slow_upstream import upstream
from tests.faults.town import nothing_lost_nothing_twice, town
from tests.postgres import Postgres

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

QUESTIONS = 24


async def test_the_network_is_cut(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    async with (
        upstream(words=40, pause=0.1) as slow,
        proxy(postgres.port) as network,
        town(tmp_path, network.through(postgres_url), slow) as here,
    ):
        await here.open("api", "worker")
        asking = []
        for half, cut in enumerate((network.reset, network.fall_silent)):
            for number in range(QUESTIONS // 2):
                asking.append(asyncio.create_task(here.ask(number + half * QUESTIONS // 2)))
                await asyncio.sleep(0.1)
            began = time.monotonic()
            cut()
            noticed = await here.ready(says=503)
            async with here.client() as client:
                refused = await client.get("/api/conversations")
            told = time.monotonic() - began
            assert refused.status_code == 503
            assert refused.json()["code"] in ("database_unreachable", "database_busy"), refused.text
            network.heal()
            returned = await here.ready()
            print(f"{cut.__name__}: noticed after {noticed:.1f} s, told {told:.1f}; returned in {returned:.1f} s")
            assert told < 40
        async with asyncio.timeout(90):
            streams = await asyncio.gather(*asking)
        print(f"all answered {time.monotonic() - began:.1f} s after the second cut; {here.told}")
        assert not here.failed, "an answer that the database held up is gone on with"
        nothing_lost_nothing_twice(postgres_url, streams)
