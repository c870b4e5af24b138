"""Whoever asks is told how events reach other processes."""

import asyncio
from pathlib import Path

import httpx
from tests.redis_server import redis_server

from terrace import assembly
from terrace.settings import Settings


async def test_a_process_without_redis_is_ready_and_says_so(tmp_path: Path) -> None:
    with redis_server() as redis:
        settings = Settings(
            data=tmp_path,
            models={"discover": False},
            knowledge={"embedding": {"model": "none"}},
            redis={"url": redis.url},
        )
        async with (
            assembly.assemble(settings) as house,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(assembly.application(house)), base_url="http://localhost"
            ) as client,
        ):
            house.jobs.listen()

            async def told(state: str, up: str) -> None:
                async with asyncio.timeout(30):
                    while not (await client.get("/ready")).json()["checks"]["events"].startswith(state):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                assert (await client.get("/ready")).status_code == 200
                assert f'terrace_redis_up{{use="events"}} {up}' in (await client.get("/metrics")).text

            await told("ok: through Redis", "1.0")
            redis.kill()
            await told("ok: through the database; Redis is away since", "0.0")
            redis.start()
            await told("ok: through Redis", "1.0")
