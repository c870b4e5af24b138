"""What keeps PostgreSQL from holding somebody up: bounds of each transaction, turns for works that would fail one
another, and memory that fits the machine."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import insert, text
from sqlmodel import Session

from terrace.errors import Unavailable
from terrace.jobs.tables import WorkerRow
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


def _workers() -> list[WorkerRow]:
    return [
        WorkerRow(id=f"w{number}", host="here", pid=1, process="x", started_at=0, heartbeat_at=0) for number in range(3)
    ]


def _put(session: Session) -> None:
    session.execute(PUT, [{"id": each.id} for each in _workers()])


def _insert(session: Session) -> None:
    session.execute(insert(WorkerRow), [each.model_dump() for each in _workers()])


def _add(session: Session) -> None:
    session.add_all(_workers())
    session.flush()


def _change(session: Session) -> None:
    rows = _workers()
    session.add_all(rows)
    session.flush()
    for number, row in enumerate(rows):
        row.pid = 2 + number
    session.flush()


@pytest.mark.parametrize("many", [_put, _insert, _add, _change])
async def test_who_stops_after_writing_many_rows_loses_them_too(
    database: PostgreSQLDatabase, many: Callable[[Session], None]
) -> None:
    """The server must know that it is waiting for us, as it does not behind a pipeline."""

    def work(session: Session) -> None:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '100ms'"))
        many(session)
        time.sleep(0.5)
        session.execute(COUNT)

    with pytest.raises(Unavailable):
        await database.write(work)
    assert await database.read(lambda session: session.execute(COUNT).scalar_one()) == 0


@pytest.mark.parametrize(("memory", "share"), [(0, 128), (1 * GB, 128), (4 * GB, 512), (8 * GB, 1024), (64 * GB, 2048)])
def test_the_private_server_takes_a_share_of_the_memory(memory: int, share: int) -> None:
    assert buffers(memory) == share * 1024**2
