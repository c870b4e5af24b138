"""SQLite files: only where the operator says, and only read."""

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.campaigns.databases.conftest import Room

from terrace.campaigns.databases.asking.sqlite import ask
from terrace.campaigns.databases.base import NewDatabase, Target
from terrace.campaigns.databases.reaching import checked_file
from terrace.errors import Invalid, TerraceError
from terrace.jobs.processes import Processes
from terrace.types import Scope


@pytest.fixture
def scope() -> Scope:
    """Of the tenant whose folders are those without `{tenant}`."""
    return Scope()


def new(path: Path | str) -> NewDatabase:
    return NewDatabase(name="Shop", kind="sqlite", file=str(path))


async def test_contacts_come_from_a_file(room: Room, scope: Scope, sqlite: Path) -> None:
    added = await room.databases.add(scope, new(sqlite))
    assert (added.kind, added.host, added.database, added.tls) == ("sqlite", "", str(sqlite), None)
    shown = await room.databases.query(scope, added.id, "SELECT * FROM customers ORDER BY email")
    assert shown.rows[0] == {
        "email": "ada@example.org", "name": "Ada Lovelace", "city": "London", "born": "1815-12-10", "spent": "12.5",
    }  # fmt: skip
    job_id, made = await room.databases.start(scope, added.id, "SELECT email, city FROM customers", "Shop", {})
    job = await room.jobs.wait(scope, job_id, 20)
    assert job.state == "succeeded", job.error
    found, _ = await room.contacts.list(scope, list_id=made.id)
    assert len(found) == 3


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM customers",
        "SELECT 1; DELETE FROM customers",
        "WITH a AS (SELECT 1) DELETE FROM customers",
        "ATTACH '/etc/passwd' AS x",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('x')",
        "SELECT writefile('/srv/x', 'y')",
        "SELECT [load_extension]('x')",
        "VACUUM INTO '/srv/x'",
    ],
)
async def test_a_query_only_reads(room: Room, scope: Scope, sqlite: Path, query: str) -> None:
    added = await room.databases.add(scope, new(sqlite), test=False)
    with pytest.raises(Invalid):
        await room.databases.query(scope, added.id, query)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM customers",
        "CREATE TABLE more (a)",
        "ATTACH '/srv/other.db' AS other",
        "PRAGMA query_only = OFF",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM customers",
        "SELECT zeroblob(1000000000)",
        "BEGIN IMMEDIATE",
    ],
)
def test_behind_the_first_wall_stands_sqlite_itself(sqlite: Path, query: str) -> None:
    with pytest.raises(Invalid), ask(Target("sqlite", 1.0, database=str(sqlite)), query) as (_, rows):
        list(rows)
    with sqlite3.connect(sqlite) as connection:
        assert connection.execute("SELECT count(*) FROM customers").fetchone() == (3,)
    connection.close()


async def test_a_query_that_never_ends_is_stopped(make: Any, processes: Processes, scope: Scope, sqlite: Path) -> None:
    room: Room = make(processes, query_timeout=0.2)
    added = await room.databases.add(scope, new(sqlite), test=False)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Invalid) as told:
        await room.databases.query(scope, added.id, endless)
    assert told.value.code == "query_timeout"


async def test_slow_queries_of_one_tenant_hold_up_no_other(
    make: Any, processes: Processes, scope: Scope, sqlite: Path
) -> None:
    room: Room = make(processes, query_timeout=60.0)  # two processes
    added = await room.databases.add(scope, new(sqlite))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    asking = [asyncio.create_task(room.databases.query(scope, added.id, endless)) for _ in range(3)]
    async with asyncio.timeout(30):
        while not processes._busy:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # for the others to come in as well, if they could
    assert len(processes._busy) == 1
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert (await room.databases.query(scope, added.id, "SELECT 1 AS one")).rows == [{"one": "1"}]


async def test_files_elsewhere_are_refused_whatever_leads_there(
    room: Room, scope: Scope, sqlite: Path, tmp_path: Path
) -> None:
    outside, link, ours = tmp_path / "secrets.db", sqlite.parent / "link.db", sqlite.parent / "terrace" / "terrace.db"
    shutil.copy(sqlite, outside)
    shutil.copy(sqlite, ours)
    os.symlink(outside, link)
    hard = sqlite.parent / "hard.db"
    os.link(ours, hard)
    for path in (outside, link, hard, f"{sqlite.parent}/../secrets.db", "/etc/passwd", "/no/such/file", ours):
        with pytest.raises(Invalid) as told:
            await room.databases.add(scope, new(path))
        assert told.value.code == "folder_not_allowed", path
    for path, code in ((sqlite.parent / "none.db", "no_such_file"), ("shop.db", "bad_file"), ("", "bad_file")):
        with pytest.raises(Invalid) as told:
            await room.databases.add(scope, new(path))
        assert told.value.code == code, path


async def test_folders_are_the_first_tenants_alone(room: Room, sqlite: Path) -> None:
    with pytest.raises(Invalid) as told:
        await room.databases.add(Scope("other"), new(sqlite))
    assert told.value.code == "folder_not_allowed"


def test_a_tenant_may_have_folders_of_its_own(sqlite: Path, tmp_path: Path) -> None:
    folders = (tmp_path / "{tenant}",)
    assert checked_file(Scope("shared"), str(sqlite), folders, tmp_path / "kept") == sqlite
    with pytest.raises(Invalid):
        checked_file(Scope("other"), str(sqlite), folders, tmp_path / "kept")


async def test_a_folder_is_checked_again_at_each_query(room: Room, scope: Scope, sqlite: Path, tmp_path: Path) -> None:
    added = await room.databases.add(scope, new(sqlite))
    outside = tmp_path / "secrets.db"
    os.replace(sqlite, outside)
    os.symlink(outside, sqlite)
    with pytest.raises(Invalid) as told:
        await room.databases.query(scope, added.id, "SELECT * FROM customers")
    assert told.value.code == "folder_not_allowed"


async def test_a_file_that_is_none_says_so(room: Room, scope: Scope, sqlite: Path) -> None:
    other = shutil.copy(__file__, sqlite.parent / "other.db")
    with pytest.raises(TerraceError) as told:
        await room.databases.add(scope, new(other))
    assert told.value.code == "no_database"
