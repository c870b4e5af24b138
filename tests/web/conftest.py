"""A whole Terrace on a free port and an empty folder, in the test's own loop."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from terrace import assembly
from terrace.settings import Settings


class Client(httpx.AsyncClient):
    """What the tests say often."""

    async def upload(
        self, name: str = "quay.txt", data: bytes = b"The quay is seven metres deep.", **fields: str
    ) -> Any:
        answer = await self.post("/api/documents/upload", files={"file": (name, data)}, data=fields)
        assert answer.status_code in (200, 202), answer.text
        return answer.json()["document"]

    async def ready(self, document_id: str) -> Any:
        """The document once it is ready or failed."""
        for _ in range(1000):
            document = (await self.get(f"/api/documents/{document_id}")).json()
            if document["state"] in ("ready", "failed"):
                return document
            await asyncio.sleep(0.02)
        raise TimeoutError(document["state"])


def in_folder(data: Path) -> Settings:
    return Settings(
        host="127.0.0.1",
        port=0,
        data=data,
        models={"discover": False},
        knowledge={"max_file_bytes": 1_000_000, "embedding": {"model": "none"}},
        web={"max_json_bytes": 200_000},
        storage={"durability": "normal"},
    )


@pytest.fixture
def settings(migrated: Path, tmp_path: Path) -> Settings:
    """Of a house that nobody has used; its tables are there already."""
    shutil.copy(migrated, tmp_path / "terrace.db")
    return in_folder(tmp_path)


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[Client]:
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(assembly.serve(settings, started=started.set_result, stop=stop))
    await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    async with Client(base_url=started.result(), timeout=30, verify=False) as client:  # no TLS, no lists of its issuers
        yield client
    stop.set()
    await serving


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with served(settings) as client:
        yield client
