"""The room of contacts over the test's database."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from terrace import settings
from terrace.campaigns.base import Turn
from terrace.campaigns.contacts.files import FileImports, How
from terrace.campaigns.contacts.intake import Examined, Intake
from terrace.campaigns.contacts.leaving import Leaving
from terrace.campaigns.contacts.service import Contacts
from terrace.campaigns.contacts.tasks import job_kinds
from terrace.errors import Missing
from terrace.jobs.base import Job
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.storage import Database, MemoryBlobs
from terrace.types import Scope


@dataclass
class Room:
    database: Database
    contacts: Contacts
    files: FileImports
    intake: Intake
    leaving: Leaving
    jobs: LocalJobs
    blobs: MemoryBlobs

    async def examine(self, scope: Scope, data: bytes, **how: Any) -> Examined:
        async with self.files.receive(scope, "people.csv", pieces(data)) as upload:
            return await self.files.examine(scope, upload, How(how.pop("mapping", {}), **how))

    async def start(self, scope: Scope, data: bytes, list_name: str = "People", **how: Any) -> str:
        async with self.files.receive(scope, "people.csv", pieces(data)) as upload:
            job_id, _ = await self.files.start(scope, upload, list_name, How(how.pop("mapping", {}), **how))
        return job_id

    async def bring(self, scope: Scope, data: bytes, list_name: str = "People", **how: Any) -> Job:
        """The job at its end."""
        return await self.jobs.wait(scope, await self.start(scope, data, list_name, **how), 90)

    async def keys(self, scope: Scope, list_name: str | None = None) -> list[str]:
        found, _ = await self.contacts.list(scope, list_id=list_name, limit=200)
        return sorted(each.key for each in found)


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def conversation(scope: Scope, conversation_id: str) -> list[Turn]:
    """Ada's alone."""
    if (scope.user, conversation_id) != ("usr_ada", "cnv_1"):
        raise Missing("No such conversation.", code="conversation_missing")
    at = datetime(2026, 1, 5, tzinfo=UTC)
    return [Turn("user", "Where is my parcel?", at), Turn("assistant", "On its way.", at)]


@pytest.fixture
async def make(database: Database) -> AsyncIterator[Callable[..., Any]]:
    """A room, with other settings than the usual; `work=False`: nobody does its jobs."""
    opened: list[Any] = []

    async def make(*, work: bool = True, **more: Any) -> Room:
        options = settings.Campaigns(**more)
        processes, blobs, jobs = Processes(2), MemoryBlobs(), LocalJobs(database, settings.Jobs(max_failures=1))
        intake = Intake(database, blobs, options)
        files = FileImports(database, blobs, jobs, processes, intake)
        for kind in job_kinds(files, intake):
            jobs.register(kind)
        if work:
            await jobs.start()
        opened.extend((jobs, processes))
        contacts = Contacts(database, options, conversation)
        return Room(database, contacts, files, intake, Leaving(database, intake), jobs, blobs)

    yield make
    for each in opened:
        await each.close()


@pytest.fixture
async def room(make: Callable[..., Any]) -> Room:
    made: Room = await make()
    return made
