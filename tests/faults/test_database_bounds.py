"""What keeps PostgreSQL from holding somebody up: bounds of each transaction, turns for works that would fail one
another, and memory that fits the machine."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlmodel import Session

from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.storage.postgresql.server import buffers

AT_ONCE = 150
GB = 1024**3
PUT = text("INSERT INTO job_workers VALUES (:id, 'here', 1, 'x', 0, 0)")
COUNT = text("SELECT count(*) FROM job_workers")


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[PostgreSQLDatabase]:
    database = PostgreSQLDatabase(postgres_url, connections=8)
    yield database
    await database.close()


async def test_works_that_would_fail_one_another_take_turns(database: PostgreSQLDatabase) -> None:
    """Each counts what all the others write: side by side only one of them can come through."""
    runs = 0

    def work(session: Session) -> int:
        nonlocal runs
        runs += 1
        count = int(session.execute(COUNT).scalar_one())
        session.execute(PUT, {"id": f"w{count:03}"})
        return count

    counted = await asyncio.gather(*(database.write(work) for _ in range(AT_ONCE)))
    assert sorted(counted) == list(range(AT_ONCE)), "none is refused, and it is as if they had come one after the other"
    assert runs < 2 * AT_ONCE, "what loses a race waits for its turn instead of trying again and again"


async def test_who_stops_amid_a_transaction_loses_it_before_others_give_up(database: PostgreSQLDatabase) -> None:
    def milliseconds(session: Session, name: str) -> int:
        asked = text("SELECT setting FROM pg_settings WHERE name = :name")
        return int(session.execute(asked, {"name": name}).scalar_one())

    stopped = await database.read(milliseconds, "idle_in_transaction_session_timeout")
    waits = await database.read(milliseconds, "lock_timeout")
    assert 10_000 <= stopped <= 20_000 < waits <= 30_000


@pytest.mark.parametrize(("memory", "share"), [(0, 128), (1 * GB, 128), (4 * GB, 512), (8 * GB, 1024), (64 * GB, 2048)])
def test_the_private_server_takes_a_share_of_the_memory(memory: int, share: int) -> None:
    assert buffers(memory) == share * 1024**2
