"""The room of other databases over the test's own, and real servers to ask."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.campaigns.databases import servers
from tests.campaigns.databases.servers import CUSTOMERS, TABLE, Server

from terrace import settings
from terrace.accounts.secret import Secret
from terrace.campaigns.contacts.files import FileImports
from terrace.campaigns.contacts.intake import Intake
from terrace.campaigns.contacts.service import Contacts
from terrace.campaigns.contacts.tasks import job_kinds as contact_kinds
from terrace.campaigns.databases.base import NewDatabase
from terrace.campaigns.databases.reaching import resolver
from terrace.campaigns.databases.service import Databases
from terrace.campaigns.databases.tasks import job_kinds
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.storage import Database, MemoryBlobs

SECRET = "a long and random enough secret: 8h3k2j5h9s8d7f"


@dataclass
class Room:
    databases: Databases
    contacts: Contacts
    jobs: LocalJobs
    storage: Database
    folder: Path

    def new(self, server: Server, **more: Any) -> NewDatabase:
        given = {"user": server.user, "password": server.password, "database": server.database, "tls": "off"}
        return NewDatabase(
            **{"name": "Shop", "kind": server.kind, "host": "127.0.0.1", "port": server.port, **given, **more}
        )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    with servers.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    with servers.mariadb() as server:
        yield server


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Any:
    """A room with other settings than the usual."""

    def make(processes: Processes, *, allow: tuple[str, ...] = ("127.0.0.0/8",), **more: Any) -> Room:
        folder, kept = tmp_path / "shared", tmp_path / "shared" / "terrace"
        kept.mkdir(parents=True, exist_ok=True)
        options = settings.Campaigns(**{"query_timeout": 30.0, **more})
        blobs, jobs = MemoryBlobs(), LocalJobs(database, settings.Jobs(max_failures=1))
        intake = Intake(database, blobs, options)
        databases = Databases(
            database,
            jobs,
            processes,
            intake,
            sealer=Secret(SECRET),
            resolve=resolver(allow),
            options=options,
            folders=(folder,),
            kept=kept,
        )
        files = FileImports(database, blobs, jobs, processes, intake)
        for kind in (*contact_kinds(files, intake), *job_kinds(databases, intake)):
            jobs.register(kind)
        return Room(databases, Contacts(database), jobs, database, folder)

    return make


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    processes = Processes(2)
    yield processes
    await processes.close()


@pytest.fixture
async def room(make: Any, processes: Processes) -> AsyncIterator[Room]:
    room: Room = make(processes)
    await room.jobs.start()
    yield room
    await room.jobs.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir(exist_ok=True)
    path = tmp_path / "shared" / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute(TABLE)
        connection.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", CUSTOMERS)
    connection.close()
    return path
