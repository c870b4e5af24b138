"""One writer with group commit, readers on snapshots, and what happens when the disk will not have it."""

import asyncio
import multiprocessing
import sqlite3
import threading
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from terrace.errors import Invalid, Unavailable
from terrace.storage import SQLiteDatabase, after_commit, in_bulk

PUT = text("INSERT INTO notes VALUES (:id, :body)")


@pytest.fixture
async def notes(tmp_path: Path):
    database = SQLiteDatabase(tmp_path / "notes.db", durability="normal")
    await database.write(
        lambda session: session.execute(text("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)"))
    )
    yield database
    await database.close()


def put(session: Session, id: int, body: str = "") -> int:
    session.execute(PUT, {"id": id, "body": body})
    return id


def ids(session: Session) -> list[int]:
    return list(session.execute(text("SELECT id FROM notes ORDER BY id")).scalars())


async def test_many_writers_each_get_their_own_answer(notes: SQLiteDatabase) -> None:
    assert await asyncio.gather(*(notes.write(put, number) for number in range(1000))) == list(range(1000))
    assert await notes.read(ids) == list(range(1000))


async def test_a_failing_work_takes_only_itself_back(notes: SQLiteDatabase) -> None:
    def fails(session: Session, id: int) -> None:
        put(session, id)
        raise Invalid("no")

    def clashes(session: Session, id: int) -> None:
        put(session, id)
        put(session, id)

    writes = [notes.write(work, number) for number, work in enumerate([put, fails, put, clashes, put, fails, put])]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(each) for each in results] == [int, Invalid, int, IntegrityError, int, Invalid, int]
    assert await notes.read(ids) == [0, 2, 4, 6]


async def test_works_in_bulk_give_way_one_at_a_time(notes: SQLiteDatabase) -> None:
    holds, held, done = threading.Event(), threading.Event(), []

    def hold(session: Session) -> None:
        holds.set()
        assert held.wait(60)

    def note(session: Session, name: str) -> None:
        done.append(name)

    bulk = in_bulk(partial(note))
    waiting = [asyncio.ensure_future(notes.write(hold))]
    assert await asyncio.to_thread(holds.wait, 60)
    waiting += [asyncio.ensure_future(notes.write(bulk, f"bulk {number}")) for number in range(3)]
    waiting += [asyncio.ensure_future(notes.write(note, f"asked {number}")) for number in range(2)]
    await asyncio.sleep(0)
    held.set()
    await waiting[1]
    await asyncio.gather(*waiting, notes.write(note, "asked later"))
    assert done[:3] == ["asked 0", "asked 1", "bulk 0"]
    assert sorted(done) == ["asked 0", "asked 1", "asked later", "bulk 0", "bulk 1", "bulk 2"]


async def test_bulk_that_waits_is_written_before_the_end(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "notes.db", durability="normal")
    await database.write(lambda session: session.execute(text("CREATE TABLE notes (id INTEGER, body TEXT)")))
    writes = [asyncio.ensure_future(database.write(in_bulk(partial(put)), number)) for number in range(5)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*writes) == list(range(5))


async def test_a_number_too_large_to_keep_is_told(notes: SQLiteDatabase) -> None:
    def find(session: Session) -> None:
        session.execute(text("SELECT 1 FROM notes WHERE id > :id"), {"id": 1 << 63})

    for call in (notes.read(find), notes.write(find)):
        with pytest.raises(Invalid, match="too large"):
            await call


async def test_callbacks_come_after_the_commit_and_only_then(notes: SQLiteDatabase) -> None:
    seen: list[int] = []

    def work(session: Session, id: int, fail: bool) -> None:
        put(session, id)
        after_commit(session, lambda: seen.append(id))
        if fail:
            raise Invalid("no")

    await asyncio.gather(*(notes.write(work, id, id % 2 == 1) for id in range(6)), return_exceptions=True)
    assert seen == [0, 2, 4] == await notes.read(ids)


async def test_a_reader_keeps_its_snapshot_and_cannot_write(notes: SQLiteDatabase) -> None:
    with pytest.raises(Unavailable):
        await notes.read(put, 1)
    assert await notes.read(ids) == []


async def test_a_cancelled_caller_does_not_undo_the_write(notes: SQLiteDatabase) -> None:
    task = asyncio.create_task(notes.write(put, 1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await notes.write(ids) == [1]


async def test_a_full_disk_is_told_and_nothing_half_done_stays(notes: SQLiteDatabase) -> None:
    def narrow(session: Session) -> int:
        pages = session.execute(text("PRAGMA page_count")).scalar_one()
        return int(session.execute(text(f"PRAGMA max_page_count = {pages + 20}")).scalar_one())

    def large(session: Session, id: int) -> None:
        put(session, id)
        for part in range(100):
            put(session, 10_000 + id * 100 + part, "x" * 4000)

    await notes.write(narrow)
    results = await asyncio.gather(
        notes.write(put, 1), notes.write(large, 2), notes.write(put, 3), return_exceptions=True
    )
    failed = [each for each in results if isinstance(each, Unavailable)]
    assert failed
    assert all(each.code == "disk_full" for each in failed)
    told_good = [each for each in results if isinstance(each, int)]
    assert await notes.read(ids) == told_good
    await notes.write(lambda session: session.execute(text("PRAGMA max_page_count = 100000")).scalar_one())
    await notes.write(put, 9)
    assert 9 in await notes.read(ids)


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"certainly not a database " * 100)
    database = SQLiteDatabase(path)
    with pytest.raises(Unavailable, match="not a database"):
        await database.write(ids)
    with pytest.raises(Unavailable, match="not a database"):
        await database.read(ids)
    await database.close()


async def test_closing_finishes_what_was_asked(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "x.db")
    await database.write(lambda session: session.execute(text("CREATE TABLE notes (id INTEGER, body TEXT)")))
    writes = [asyncio.create_task(database.write(put, number)) for number in range(100)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*writes) == list(range(100))
    with pytest.raises(Unavailable, match="shutting down"):
        await database.write(put, 1)


def _other_process(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO notes VALUES (77, '')")


async def test_watch_wakes_for_other_processes_and_not_for_us(notes: SQLiteDatabase) -> None:
    woken = asyncio.Event()
    stop = notes.watch(woken.set)
    async with asyncio.timeout(20):
        await woken.wait()  # it is watched now; what came before may have escaped
    woken.clear()
    for number in range(5):
        await notes.write(put, number)
        await asyncio.sleep(0.03)
    assert not woken.is_set()
    other = multiprocessing.get_context("spawn").Process(target=_other_process, args=(notes.path,))
    other.start()
    async with asyncio.timeout(20):
        await woken.wait()
    await asyncio.to_thread(other.join)
    late = asyncio.Event()
    stop_late = notes.watch(late.set)
    async with asyncio.timeout(20):
        await late.wait()  # what was written while its owner made up its mind
    stop_late()
    stop()


async def test_who_ends_begins_to_wait_for_nobody(notes: SQLiteDatabase) -> None:
    await notes.write(put, 1)
    notes.end_within(0)
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="shutting down"):
        await notes.write(put, 2)
    assert await notes.read(ids) == [1]
