"""The real job engine, store and blobs; the requests themselves are answered by a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlmodel import Session

from terrace import settings
from terrace.batches.base import Answer, Batch
from terrace.batches.files import Files
from terrace.batches.running import House
from terrace.batches.service import Batches, Wanted
from terrace.jobs.base import Job
from terrace.jobs.engines.local import LocalJobs
from terrace.storage import Database
from terrace.storage.blobs import MemoryBlobs
from terrace.types import Scope, now

CHAT = "/v1/chat/completions"
Script = Callable[[Scope, str], Awaitable[Answer]]


def answer(text: str, status: int = 200) -> Answer:
    return Answer(status, "req_1", json.dumps({"text": text, "usage": {"prompt_tokens": 2}}).encode())


async def echo(scope: Scope, text: str) -> Answer:
    return answer(text)


@dataclass
class Told:
    """A webhook's ear."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None:
        self.events.append((type, data))


@dataclass
class Room:
    database: Database
    scope: Scope
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    told: Told = field(default_factory=Told)
    script: Script = echo
    asked: list[str] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    moved: float = 0.0  # seconds by which the clock is ahead

    async def run_line(self, scope: Scope, endpoint: str, body: bytes) -> Answer:
        text = json.loads(body)["text"]
        self.asked.append(text)
        self.scopes.append(scope)
        return await self.script(scope, text)

    async def open(self) -> None:
        options = settings.Batches(concurrency=4, max_requests=50, max_file_bytes=100_000)
        clock = lambda: now() + self.moved  # noqa: E731
        house = House(self.database, self.blobs, self.run_line, options, self.told, clock, pause=0.001)
        self.jobs = LocalJobs(self.database, settings.Jobs(backoff=0.01, drain=0.05, max_failures=2))
        self.batches = Batches(house, self.jobs)
        self.files = Files(self.database, self.blobs, options)
        self.jobs.register(self.batches.kind)
        await self.jobs.start()

    async def restart(self) -> None:
        """As a server that was stopped in the middle and comes back."""
        await self.jobs.close()
        await self.open()

    async def begin(self, *texts: str, scope: Scope | None = None, **more: Any) -> Batch:
        scope = scope or self.scope
        lines = [
            {"custom_id": f"id-{n}", "method": "POST", "url": CHAT, "body": {"text": text, "model": "m"}}
            for n, text in enumerate(texts)
        ]
        content = "\n".join(map(json.dumps, lines)).encode()
        return await self.begin_with(content, scope, **more)

    async def begin_with(self, content: bytes, scope: Scope, **more: Any) -> Batch:
        async def pieces() -> AsyncIterator[bytes]:
            yield content

        file = await self.files.admit(scope, await self.files.receive(scope, pieces()), "in.jsonl", "batch")
        return await self.batches.create(scope, replace(Wanted(file.id, CHAT), **more))

    async def over(self, batch: Batch) -> tuple[Batch, Job]:
        job = await self.jobs.wait(self.scope, batch.job_id or "", 60)
        return await self.batches.get(self.scope, batch.id), job

    async def read(self, file_id: str | None) -> list[dict[str, Any]]:
        assert file_id is not None
        _, pieces = await self.files.content(self.scope, file_id)
        return [json.loads(line) for line in b"".join([piece async for piece in pieces]).splitlines()]

    async def until(self, wanted: Callable[[], bool]) -> None:
        for _ in range(4000):
            if wanted():
                return
            await asyncio.sleep(0.005)
        raise TimeoutError


@pytest.fixture
async def room(database: Database, scope: Scope) -> AsyncIterator[Room]:
    room = Room(database, scope)
    await room.open()
    yield room
    await room.jobs.close()
