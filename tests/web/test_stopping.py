"""Stopping: a page left open holds nothing up."""

import asyncio

import httpx

from terrace import assembly
from terrace.settings import Settings


async def test_idle_streams_end_when_the_server_stops(settings: Settings) -> None:
    settings = settings.model_copy(update={"web": settings.web.model_copy(update={"shutdown_grace": 60.0})})
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(assembly.serve(settings, started=started.set_result, stop=stop))
    async with (
        httpx.AsyncClient(base_url=await started, timeout=30) as client,
        client.stream("GET", "/api/jobs/events") as stream,
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == ": connected"
        stop.set()
        async with asyncio.timeout(settings.web.shutdown_grace / 2):
            assert [line async for line in lines if line] == []  # a whole end, not a cut
            await serving
