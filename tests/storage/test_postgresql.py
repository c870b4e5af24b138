"""What is PostgreSQL's own: who listens, what is told when it cannot be, how it is opened."""

import asyncio
import itertools
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.postgres import Postgres

from terrace.errors import Conflict, Internal, Invalid, Unavailable
from terrace.settings import Settings
from terrace.storage import migrate, open_database
from terrace.storage.database import driver_of
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.storage.postgresql.migrating import migrate_once
from terrace.storage.postgresql.watching import TELL_SECONDS

PUT = text("INSERT INTO job_workers VALUES (:id, 'here', 1, 'x', 0, 0)")


def put(session: Session, id: str) -> None:
    session.execute(PUT, {"id": id})


def ids(session: Session) -> list[str]:
    return list(session.execute(text("SELECT id FROM job_workers ORDER BY id")).scalars())


@pytest.fixture
async def ours(postgres_url: str) -> AsyncIterator[PostgreSQLDatabase]:
    database = PostgreSQLDatabase(postgres_url, connections=2)
    yield database
    await database.close()


@pytest.fixture
async def theirs(postgres_url: str) -> AsyncIterator[PostgreSQLDatabase]:
    """As another process has it."""
    database = PostgreSQLDatabase(postgres_url, connections=2)
    yield database
    await database.close()


async def test_watchers_hear_of_others_and_not_of_us(ours: PostgreSQLDatabase, theirs: PostgreSQLDatabase) -> None:
    woken = asyncio.Event()
    stop = ours.watch(woken.set)
    async with asyncio.timeout(20):
        await woken.wait()  # it listens now; what came before may have escaped it
        woken.clear()
        for number in range(5):
            await ours.write(put, f"ours_{number}")
            await asyncio.sleep(0.02)
        assert not woken.is_set()
        await theirs.write(put, "theirs")
        await woken.wait()
        stop()
        woken.clear()
        heard = asyncio.Event()
        ours.watch(heard.set)
        await heard.wait()  # what was written before it was there
        heard.clear()
        await theirs.write(put, "again")
        await heard.wait()
    assert not woken.is_set()


async def test_who_can_neither_listen_nor_look_is_woken_now_and_then(postgres_url: str) -> None:
    deaf = PostgreSQLDatabase(postgres_url, connections=1, listen_url="postgresql://127.0.0.1:9/nowhere")
    woken = asyncio.Event()
    deaf.watch(woken.set)
    async with asyncio.timeout(20):
        for _ in range(3):
            await woken.wait()
            woken.clear()
    await deaf.close()


async def test_many_writes_are_told_of_in_few_words(
    ours: PostgreSQLDatabase, theirs: PostgreSQLDatabase, postgres: Postgres, postgres_url: str
) -> None:
    with postgres.connection(postgres_url) as listener:
        listener.execute("LISTEN terrace")
        began = time.monotonic()
        await asyncio.gather(*(ours.write(put, f"w{number:03}") for number in range(200)))
        await ours.close()
        took = time.monotonic() - began
        listener.execute("NOTIFY terrace, 'the last'")
        with closing(listener.notifies(timeout=30)) as heard:
            said = list(itertools.takewhile(lambda word: word != "the last", (word.payload for word in heard)))
    assert 1 <= len(said) <= took / TELL_SECONDS + 2
    assert len(set(said)) == 1


async def test_a_text_postgresql_cannot_keep_is_told(ours: PostgreSQLDatabase) -> None:
    with pytest.raises(Invalid, match="U\\+0000"):
        await ours.write(put, "a\0b")


async def test_a_work_that_goes_on_after_a_failed_statement_is_not_taken_for_done(ours: PostgreSQLDatabase) -> None:
    def careless(session: Session) -> None:
        put(session, "once")
        try:
            put(session, "once")
        except Exception:
            return

    with pytest.raises(RuntimeError, match="savepoint"):
        await ours.write(careless)
    assert await ours.read(ids) == []


async def test_text_is_ordered_by_its_bytes(ours: PostgreSQLDatabase) -> None:
    for each in ("b", "A", "_", "a", "B", "1"):
        await ours.write(put, each)
    assert await ours.read(ids) == sorted(("b", "A", "_", "a", "B", "1"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://postgres@127.0.0.1:1/x", "reached: .*refused"),
        ("postgresql://postgres@127.0.0.1:{port}/nowhere", 'reached: .*"nowhere" does not exist'),
    ],
)
async def test_a_database_that_is_not_there_is_told_at_the_start(
    url: str, told: str, postgres: Postgres, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match=told):
        await open_database(Settings(data=tmp_path, storage={"url": url.format(port=postgres.port)}))


async def test_a_password_is_never_told(tmp_path: Path) -> None:
    for url in (
        "postgresql://ada:hunter22@127.0.0.1:1/x",
        "postgresql://ada:hunter22@127.0.0.1:port/x",
        "postgresql://ada:h@hunter22@127.0.0.1:1/x",
        "postgresql://ada:hunter22@127.0.0.1:1/x?sslmod=require",
    ):
        with pytest.raises((Unavailable, Invalid)) as caught:
            await open_database(Settings(data=tmp_path, storage={"url": url}))
        assert "hunter22" not in str(caught.value)


async def test_opened_by_many_at_once_it_is_migrated_once(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create(empty=True)
    settings = Settings(data=tmp_path, storage={"url": url, "connections": 2})
    opened = await asyncio.gather(*(open_database(settings) for _ in range(10)))
    for database in opened:
        assert await database.read(lambda session: migrate.current(session.connection())) == migrate.head()
        await database.close()
    postgres.drop(url)


async def test_a_database_of_the_future_is_refused(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    with postgres.connection(postgres_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Conflict, match="9999"):
        await open_database(Settings(data=tmp_path, storage={"url": postgres_url}))


async def test_the_database_goes_away_and_comes_back(ours: PostgreSQLDatabase, postgres: Postgres) -> None:
    await ours.write(put, "before")
    woken = asyncio.Event()
    ours.watch(woken.set)
    async with asyncio.timeout(60):
        await woken.wait()
        await asyncio.to_thread(postgres.stop)
        for call in (ours.read(ids), ours.write(put, "meanwhile")):
            with pytest.raises(Unavailable) as told:
                await call
            assert (told.value.code, told.value.retry_after) == ("database_unreachable", 1)
        results = await asyncio.gather(*(ours.write(put, f"w{n}") for n in range(50)), return_exceptions=True)
        assert {type(each) for each in results} == {Unavailable}
        woken.clear()
        await asyncio.to_thread(postgres.start)
        await woken.wait()
        await asyncio.sleep(0.25)  # for so long nobody knocks again
        await ours.write(put, "after")
        assert await ours.read(ids) == ["after", "before"]


async def test_a_restart_between_two_works_goes_unnoticed(ours: PostgreSQLDatabase, postgres: Postgres) -> None:
    await asyncio.gather(*(ours.write(put, f"w{n}") for n in range(8)))
    await asyncio.to_thread(postgres.stop)
    await asyncio.to_thread(postgres.start)
    await asyncio.gather(*(ours.write(put, f"x{n}") for n in range(8)))
    assert len(await ours.read(ids)) == 16


async def test_a_line_that_is_cut_when_all_is_read_goes_unnoticed(postgres_url: str) -> None:
    """What was read is handed over before its transaction ends."""

    def read(session: Session) -> list[str]:
        found = ids(session)
        with socket.socket(fileno=os.dup(driver_of(session).fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)
        return found

    database = PostgreSQLDatabase(postgres_url, connections=1)
    await database.write(put, "before")
    assert await database.read(read) == await database.read(read) == ["before"]
    await database.write(put, "after")
    assert await database.read(ids) == ["after", "before"]
    await database.close()


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(Invalid, match=r"storage\.url"):
        PostgreSQLDatabase("postgresql//nonsense")


async def test_a_failing_migration_leaves_everything_as_it_was(postgres: Postgres, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    shutil.copytree(migrate.MIGRATIONS, folder)
    number = f"{int(migrate.head()) + 1:04d}"
    (folder / "versions" / f"{number}_broken.py").write_text(
        f'revision = "{number}"\ndown_revision = "{migrate.head()}"\n\n\ndef upgrade() -> None:\n'
        "    from alembic import op\n"
        '    op.execute("CREATE TABLE half (id INTEGER)"); op.execute("CREATE TABLE half (id INTEGER)")\n'
    )
    url = postgres.create(empty=True)
    database = PostgreSQLDatabase(url, connections=2)
    with pytest.raises(Internal, match="already exists"):
        await database.write(migrate_once, folder=folder)
    assert await database.read(lambda session: migrate.current(session.connection())) is None
    await database.close()
    postgres.drop(url)
