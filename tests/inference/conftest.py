"""The model server on a free port, with a model of a megabyte."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.tiny_gguf import write_tiny_gguf

from terrace import assembly
from terrace.settings import Settings

KEY = "quay-harbour-lighthouse-42"
CONTEXT = 32_768  # an answer that fills it takes minutes


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf", context=CONTEXT)


def settings_of(data: Path, gguf: Path | None, **inference: Any) -> Settings:
    return Settings(
        host="127.0.0.1",
        port=0,
        data=data,
        role="inference",
        inference={"model": gguf, "key": KEY, "slots": 2, "context": CONTEXT, "threads": 1, **inference},
        web={"shutdown_grace": 20.0},
    )


class Server:
    def __init__(self, url: str, stop: asyncio.Event, serving: "asyncio.Task[None]") -> None:
        self.url = url
        self.stop = stop
        self.serving = serving

    def client(self, key: str = KEY) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, verify=False)

    async def ready(self) -> dict[str, Any]:
        async with asyncio.timeout(60), self.client() as client:
            while (answer := await client.get("/ready")).status_code != 200:  # noqa: ASYNC110 over HTTP
                await asyncio.sleep(0.05)
        said: dict[str, Any] = answer.json()
        return said


@asynccontextmanager
async def inferring(settings: Settings) -> AsyncIterator[Server]:
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(assembly.serve(settings, started=started.set_result, stop=stop))
    await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    server = Server(started.result(), stop, serving)
    try:
        yield server
    finally:
        stop.set()
        await serving


@pytest.fixture
async def server(tmp_path: Path, gguf: Path) -> AsyncIterator[Server]:
    async with inferring(settings_of(tmp_path, gguf)) as server:
        await server.ready()
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client
