"""A whole library without processes or models: a parser of plain paragraphs, hashed vectors, blobs in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from terrace import settings
from terrace.errors import Invalid
from terrace.jobs.base import Done, Job
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.knowledge.base import Chunk, Page, Parsed, Span
from terrace.knowledge.doctor import Doctor
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.index import open_index
from terrace.knowledge.ingest import Ingest
from terrace.knowledge.media import sniff
from terrace.knowledge.pages import PageMarks
from terrace.knowledge.receiving import Door
from terrace.knowledge.service import Knowledge
from terrace.knowledge.tasks import job_kinds
from terrace.storage import Database
from terrace.storage.blobs import MemoryBlobs
from terrace.types import Scope


class Paragraphs:
    """Each paragraph is a chunk; a form feed ends a page. `LOCKED` is what an encrypted file says."""

    def __init__(self) -> None:
        self.parsed: list[str] = []
        self.before: Callable[[], Any] | None = None  # awaited before a file is read

    async def parse(
        self, path: Path, name: str, progress: Callable[[float, float, str], None] | None = None
    ) -> tuple[Parsed, Sequence[Chunk]]:
        self.parsed.append(name)
        if self.before is not None:
            await self.before()
        text = (await asyncio.to_thread(path.read_bytes)).decode()
        if text.startswith("LOCKED"):
            raise Invalid("This file is protected by a password.", code="document_encrypted")
        chunks, pages, at = [], [], 0
        for number, page in enumerate(text.split("\f"), 1):
            pages.append(Page(number, Span(at, at + len(page))))
            for part in page.split("\n\n"):
                if part.strip():
                    start = text.index(part, at)
                    chunks.append(Chunk(len(chunks), Span(start, start + len(part)), part, number))
            at += len(page) + 1
        return Parsed(text, sniff(text.encode()), title=text.split("\n")[0][:50], pages=tuple(pages)), chunks


@dataclass
class Attempt:
    """A handler's context that writes straight to the database; `died` ends it after so many writes."""

    database: Database
    job_id: str
    scope: Scope
    payload: dict[str, Any]
    attempt: int = 1
    writes_left: int = 1000
    notes: list[str] = field(default_factory=list)

    def emit(self, type: str, data: dict[str, Any]) -> None:
        pass

    def progress(self, done: float, total: float, note: str = "") -> None:
        self.notes.append(note)

    async def write(self, work: Callable[[Session], Any]) -> Any:
        if self.writes_left == 0:
            raise Died
        self.writes_left -= 1
        return await self.database.write(work)

    async def children(self, kind: str, payloads: list[dict[str, Any]]) -> list[str]:
        raise AssertionError("ingestion has no children")


class Died(BaseException):
    """The process is gone."""


class Pictures:
    """Says what it was asked."""

    async def page_image(self, path: Path, page: Page, start: int = 0, end: int = 0, width: int = 1000) -> bytes:
        return f"page {page.number}: {start}-{end}, {width}".encode()

    async def page_marks(self, path: Path, page: Page, start: int, end: int) -> PageMarks:
        return PageMarks(1.0, 2.0, ())


class Library:
    died = Died

    def __init__(self, database: Database, processes: Processes) -> None:
        options = settings.Knowledge(max_file_bytes=1_000_000, max_batch_files=10)
        self.database = database
        self.processes = processes
        self.blobs = MemoryBlobs()
        self.parser = Paragraphs()
        self.index = open_index(database)
        self.embedder: Any = HashEmbedder()
        self.jobs = LocalJobs(database, settings.Jobs(cpu_slots=3, backoff=0.01))  # at work once it is started
        self.use(self.embedder)
        self.knowledge = Knowledge(
            database, self.blobs, self.jobs, self.index, Door(self.blobs, processes, options), Pictures()
        )

    def use(self, embedder: Any) -> None:
        """Another embedding model."""
        self.embedder = embedder
        self.ingest = Ingest(self.database, self.blobs, self.parser, self.index, embedder)
        for kind in job_kinds(self.ingest):
            self.jobs.register(kind)
        self.doctor = Doctor(self.database, self.blobs, self.jobs, self.index, embedder)

    async def upload(self, scope: Scope, text: str, name: str = "a.txt", **options: Any) -> Any:
        return await self.knowledge.upload(scope, name, pieces(text.encode()), **options)

    def attempt(self, scope: Scope, job: Job, *, writes: int = 1000) -> Attempt:
        return Attempt(self.database, job.id, scope, job.payload, writes_left=writes)

    async def run(self, scope: Scope, job_id: str | None, *, writes: int = 1000) -> Attempt:
        """Run a job's handler as an engine would, and what follows its end. Raises Died past `writes`."""
        assert job_id is not None
        job = await self.jobs.get(scope, job_id)
        attempt = self.attempt(scope, job, writes=writes)
        handler = self.jobs.kinds[job.kind].handler
        assert handler is not None
        done = await handler(attempt)
        if isinstance(done, Done) and done.commit is not None:
            await attempt.write(done.commit)
        return attempt

    async def add(self, scope: Scope, text: str, name: str = "a.txt", **options: Any) -> Any:
        """Upload and ingest; the document afterwards."""
        document, job_id = await self.upload(scope, text, name, **options)
        await self.run(scope, job_id)
        return await self.knowledge.get(scope, document.id)

    async def keys(self) -> set[str]:
        return {each.key async for each in self.blobs.list()}

    async def table(self, name: str) -> int:
        query = f"SELECT COUNT(*) FROM {name}"
        return await self.database.read(lambda session: session.connection().exec_driver_sql(query).scalar_one())


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture
async def library(database: Database) -> AsyncIterator[Library]:
    processes = Processes(1)
    library = Library(database, processes)
    yield library
    await library.jobs.close()
    await processes.close()
