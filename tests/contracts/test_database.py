"""What every database promises, whichever it is."""

import asyncio
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from terrace.errors import Invalid, Unavailable
from terrace.jobs.tables import WorkerRow
from terrace.storage import Database, after_commit, own_locks

PUT = text("INSERT INTO job_workers VALUES (:id, 'here', :number, 'x', 0, 0)")


def put(session: Session, number: int) -> int:
    session.execute(PUT, {"id": f"wrk_{number:05}", "number": number})
    return number


def numbers(session: Session) -> list[int]:
    return list(session.execute(text("SELECT pid FROM job_workers ORDER BY id")).scalars())


async def test_many_writers_each_get_their_own_answer(any_database: Database) -> None:
    assert await asyncio.gather(*(any_database.write(put, number) for number in range(300))) == list(range(300))
    assert await any_database.read(numbers) == list(range(300))


async def test_a_failing_work_takes_only_itself_back(any_database: Database) -> None:
    def fails(session: Session, number: int) -> None:
        put(session, number)
        raise Invalid("no")

    def clashes(session: Session, number: int) -> None:
        put(session, number)
        put(session, number)

    writes = [any_database.write(work, number) for number, work in enumerate([put, fails, put, clashes, put, fails])]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(each) for each in results] == [int, Invalid, int, IntegrityError, int, Invalid]
    assert await any_database.read(numbers) == [0, 2, 4]


async def test_what_is_read_and_then_written_is_as_if_nobody_else_wrote(any_database: Database) -> None:
    runs = 0
    told: list[int] = []

    def next_one(session: Session) -> int:
        nonlocal runs
        runs += 1
        number = len(numbers(session))
        put(session, number)
        after_commit(session, lambda: told.append(number))
        return number

    found = await asyncio.gather(*(any_database.write(next_one) for _ in range(40)))
    assert sorted(found) == list(range(40)) == await any_database.read(numbers)
    assert sorted(told) == list(range(40)), "a run that lost its race must not be told of"
    assert runs >= 40


async def test_two_who_look_before_they_put_do_not_both_put(any_database: Database) -> None:
    def ensure(session: Session) -> str:
        if session.get(WorkerRow, "wrk_00007") is None:
            put(session, 7)
            return "put"
        return "found"

    found = await asyncio.gather(*(any_database.write(ensure) for _ in range(20)))
    assert sorted(found) == ["found"] * 19 + ["put"]


async def test_a_row_made_outside_is_stored_though_its_first_run_was_lost(any_database: Database) -> None:
    rows = [WorkerRow(id=f"wrk_{n}", host="h", pid=n, process="p", started_at=0, heartbeat_at=0) for n in range(12)]

    def add(session: Session, row: WorkerRow) -> None:
        numbers(session)
        session.add(row)

    await asyncio.gather(*(any_database.write(add, row) for row in rows))
    assert sorted(await any_database.read(numbers)) == list(range(12))


async def test_callbacks_come_after_the_commit_and_only_then(any_database: Database) -> None:
    seen: list[int] = []

    def work(session: Session, number: int, fail: bool) -> None:
        put(session, number)
        after_commit(session, lambda: seen.append(number))
        if fail:
            raise Invalid("no")

    await asyncio.gather(*(any_database.write(work, id, id % 2 == 1) for id in range(6)), return_exceptions=True)
    assert sorted(seen) == [0, 2, 4] == await any_database.read(numbers)


async def test_a_reader_keeps_its_snapshot_and_cannot_write(any_database: Database) -> None:
    with pytest.raises(Unavailable):
        await any_database.read(put, 1)
    assert await any_database.read(numbers) == []


async def test_a_savepoint_survives_a_statement_that_fails(any_database: Database) -> None:
    def twice(session: Session) -> str:
        put(session, 1)
        try:
            with session.begin_nested():
                put(session, 1)
        except IntegrityError:
            put(session, 2)
        return "went on"

    assert await any_database.write(twice) == "went on"
    assert await any_database.read(numbers) == [1, 2]


async def test_a_work_with_its_own_locks_writes_too(any_database: Database) -> None:
    @own_locks
    def add(session: Session, by: int) -> None:
        session.execute(text("UPDATE job_workers SET pid = pid + :by"), {"by": by})

    await any_database.write(put, 0)
    await asyncio.gather(*(any_database.write(partial(add, by=2)) for _ in range(25)))
    assert await any_database.read(numbers) == [50]


async def test_a_cancelled_caller_does_not_undo_the_write(any_database: Database) -> None:
    written = asyncio.Event()

    def work(session: Session) -> None:
        put(session, 1)
        after_commit(session, written.set)

    task = asyncio.create_task(any_database.write(work))
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(20):
        await written.wait()
    assert await any_database.read(numbers) == [1]


async def test_closing_finishes_what_was_asked(any_database: Database) -> None:
    writes = [asyncio.create_task(any_database.write(put, number)) for number in range(50)]
    await asyncio.sleep(0)
    await any_database.close()
    assert await asyncio.gather(*writes) == list(range(50))
    for call in (any_database.read(numbers), any_database.write(put, 99)):
        with pytest.raises(Unavailable, match="shutting down"):
            await call


async def test_a_number_too_large_to_keep_is_told(any_database: Database) -> None:
    def keep(session: Session) -> None:
        session.execute(
            text("INSERT INTO batch_files VALUES ('f', 't', '', '', 'p', 'n', :n, 'b', 0, 0)"), {"n": 1 << 63}
        )

    with pytest.raises(Invalid, match="too large"):
        await any_database.write(keep)
