"""Uploads every file of a folder and reads them all: `ingest_worker.py DATA FILES`. Says `done` when nothing is left.

Started again after a death, it goes on; that is what is tested.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.knowledge.doctor import Doctor
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.index import open_index
from terrace.knowledge.ingest import Ingest
from terrace.knowledge.parsers import FileParser
from terrace.knowledge.receiving import Door
from terrace.knowledge.service import Knowledge
from terrace.knowledge.tasks import job_kinds
from terrace.settings import Jobs, Settings
from terrace.storage import FolderBlobs, open_database
from terrace.types import Scope

SCOPE = Scope("acme")
OPEN = ("queued", "parsing", "embedding")


class SlowEmbedder(HashEmbedder):
    """Leaves time to be killed between two batches."""

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Any = None) -> Any:
        await asyncio.sleep(0.02)
        return await super().embed(texts, query=query)


class House:
    def __init__(self, database: Any, blobs: FolderBlobs, jobs: LocalJobs, processes: Processes, settings: Settings):
        self.database, self.blobs, self.jobs = database, blobs, jobs
        self.index = open_index(database)
        files = FileParser(settings.knowledge, processes)
        door = Door(blobs, processes, settings.knowledge)
        self.knowledge = Knowledge(database, blobs, jobs, self.index, door, files)
        embedder = SlowEmbedder()
        for kind in job_kinds(Ingest(database, blobs, files, self.index, embedder)):
            jobs.register(kind)
        self.doctor = Doctor(database, blobs, jobs, self.index, embedder)


@asynccontextmanager
async def opened(data: Path) -> AsyncIterator[House]:
    settings = Settings(data=data, jobs=Jobs(cpu_slots=4, max_crashes=1000, backoff=0.05, lease=2, heartbeat=0.5))
    async with AsyncExitStack() as stack:
        database = await open_database(settings)
        stack.push_async_callback(database.close)
        processes = Processes(2)
        stack.push_async_callback(processes.close)
        jobs = LocalJobs(database, settings.jobs)
        stack.push_async_callback(jobs.close)
        yield House(database, FolderBlobs(data / "blobs"), jobs, processes, settings)


async def pieces(path: Path) -> AsyncIterator[bytes]:
    yield await asyncio.to_thread(path.read_bytes)


async def work(data: Path, files: Path) -> None:
    async with opened(data) as house:
        await house.jobs.start()
        print("started", flush=True)
        for path in await asyncio.to_thread(lambda: sorted(files.iterdir())):
            await house.knowledge.upload(SCOPE, path.name, pieces(path))
        while True:
            documents, _ = await house.knowledge.list(SCOPE, limit=500)
            if not any(document.state in OPEN for document in documents):
                break
            await asyncio.sleep(0.05)
        await house.jobs.drain()
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), Path(sys.argv[2])))
