"""Guessing is slow, whoever guesses and whichever process they ask, and nobody is locked out by others."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session, col, func, select
from tests.accounts.identity import SECRET, Clock, add_user
from tests.postgres import Postgres

from terrace import settings
from terrace.accounts.audit import Audit
from terrace.accounts.guesses import SWEEP, WINDOW, Guess, Guesses, Rule
from terrace.accounts.mail import Mail
from terrace.accounts.passwords import Passwords
from terrace.accounts.sessions import Sessions
from terrace.accounts.tables import GuessRow
from terrace.accounts.throttle import Throttle
from terrace.errors import Limited, TerraceError
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.postgresql import PostgreSQLDatabase

HERS, HOME, ELSEWHERE = "ada@example.org", "192.0.2.1", "198.51.100.9"
OPTIONS = settings.Accounts(login_attempts=3, address_attempts=5)
TABLES = ("guesses", "sessions", "memberships", "users")
MIXED = Rule("account", 1_000_000)


@pytest.fixture(scope="module")
def emptied(postgres: Postgres) -> Iterator[str]:
    """One database for all of these tests: making one takes longer than each of them."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
async def another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], Database]]:
    """Opens the same empty database as another process does."""
    opened: list[Database] = []

    def on_sqlite() -> Database:
        opened.append(SQLiteDatabase(tmp_path / "terrace.db", durability="normal"))
        return opened[-1]

    def on_postgresql() -> Database:
        opened.append(PostgreSQLDatabase(request.getfixturevalue("emptied"), connections=3))
        return opened[-1]

    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated"), tmp_path / "terrace.db")
        yield on_sqlite
    else:
        empty = [text(f"DELETE FROM {table}") for table in TABLES]
        await on_postgresql().write(lambda session: [session.execute(each) for each in empty] and None)
        yield on_postgresql
    for each in opened:
        await each.close()


@pytest.fixture
def database(another: Callable[[], Database]) -> Database:
    return another()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(database: Database, clock: Clock) -> Throttle:
    return Throttle(database, OPTIONS, clock=clock)


async def fail(throttle: Throttle, times: int, email: str = HERS, address: str = ELSEWHERE) -> None:
    for _ in range(times):
        async with throttle.attempt(email, address) as attempt:
            await attempt.failed()


async def succeed(throttle: Throttle, email: str = HERS, address: str = ELSEWHERE) -> None:
    async with throttle.attempt(email, address) as attempt:
        await attempt.succeeded()


async def waits(throttle: Throttle, email: str = HERS, address: str = ELSEWHERE) -> float:
    try:
        async with throttle.attempt(email, address):
            return 0
    except Limited as told:
        return told.retry_after or 0


async def entered(database: Database, address: str = HOME) -> None:
    """Ada has an account, and a session from there."""
    user = await add_user(database, HERS)
    passwords = Passwords(OPTIONS)
    sessions = Sessions(
        database, OPTIONS, SECRET, passwords, Throttle(database, OPTIONS), Audit(database), Mail(settings.SMTP())
    )
    await sessions.open(user, address=address)
    await sessions.close()
    passwords.close()


def kept(session: Session) -> int:
    return session.exec(select(func.count()).select_from(GuessRow)).one()


async def test_an_account_gets_so_many_failures_in_the_window(throttle: Throttle, clock: Clock) -> None:
    await fail(throttle, 3)
    assert await waits(throttle) == pytest.approx(WINDOW, abs=5)
    assert await waits(throttle, address="203.0.113.1")  # from wherever
    assert not await waits(throttle, email="bob@example.org")
    clock.ahead += WINDOW + 1
    assert not await waits(throttle)


async def test_every_process_counts_them_and_a_restart_forgives_nobody(
    another: Callable[[], Database], throttle: Throttle, clock: Clock
) -> None:
    others = [Throttle(another(), OPTIONS, clock=clock) for _ in range(2)]
    for each in (throttle, *others):
        await fail(each, 1)
    for each in (throttle, *others, Throttle(another(), OPTIONS, clock=clock)):
        assert await waits(each)
        assert not await waits(each, email="bob@example.org")


async def test_an_address_gets_so_many_failures_whatever_the_accounts(throttle: Throttle) -> None:
    for n in range(5):
        await fail(throttle, 1, email=f"n{n}@example.org")
    assert await waits(throttle, email="another@example.org")
    assert not await waits(throttle, email="another@example.org", address=HOME)


async def test_success_clears_the_accounts_count_and_not_the_addresss(throttle: Throttle) -> None:
    await fail(throttle, 2)
    await succeed(throttle)
    await fail(throttle, 2)
    await succeed(throttle)
    await fail(throttle, 1)
    assert await waits(throttle, email="mine@example.org")  # five from there: an account of one's own is no way round


async def test_nobody_is_locked_out_from_where_they_have_logged_in(
    another: Callable[[], Database], database: Database, throttle: Throttle, clock: Clock
) -> None:
    await entered(database)
    elsewhere = Throttle(another(), OPTIONS, clock=clock)
    for hour in range(4):
        for n in range(3):
            if not await waits(throttle, address=f"203.0.113.{hour}"):
                await fail(throttle, 1, address=f"203.0.113.{hour}")
            assert not await waits(elsewhere, address=HOME), (hour, n)
        assert await waits(elsewhere)
        clock.ahead += 1800
    await fail(elsewhere, 3, address=HOME)  # and from there as well one does not guess for ever
    assert await waits(throttle, address=HOME)
    clock.ahead += WINDOW
    await succeed(throttle, address=HOME)
    assert not await waits(elsewhere), "the person is back: nobody's failures count against them"


async def test_many_at_once_are_no_way_round(throttle: Throttle) -> None:
    async with throttle.attempt(HERS, "192.0.2.10"), throttle.attempt(HERS, "192.0.2.11"):
        async with throttle.attempt(HERS, "192.0.2.12"):
            assert 0 < await waits(throttle, address="192.0.2.13") <= 2
        assert not await waits(throttle, address="192.0.2.13")  # one of them turned out well
    await fail(throttle, 3)


async def test_many_at_once_at_many_processes_learn_no_more(another: Callable[[], Database], clock: Clock) -> None:
    """Who began in time and ends too late is told nothing: not that it was wrong, and not that it was right."""
    processes = [Throttle(another(), OPTIONS, clock=clock) for _ in range(3)]
    began = asyncio.Barrier(len(processes) * 3)
    wrong = len(processes) * 2
    all_wrong = asyncio.Event()

    async def guess(throttle: Throttle, right: bool) -> str:
        nonlocal wrong
        try:
            async with throttle.attempt(HERS, ELSEWHERE) as attempt:
                await began.wait()
                if right:
                    await all_wrong.wait()
                    await attempt.succeeded()
                    return "right"
                await attempt.failed()
                return "wrong"
        except Limited:
            return "nothing"
        finally:
            if not right:
                wrong -= 1
                if not wrong:
                    all_wrong.set()

    async with asyncio.timeout(30):
        told = await asyncio.gather(*(guess(each, n == 2) for each in processes for n in range(3)))
    assert sorted(told) == ["nothing"] * 6 + ["wrong"] * 3


async def test_an_attempt_that_broke_off_counts_for_nothing(throttle: Throttle) -> None:
    for _ in range(6):
        with pytest.raises(RuntimeError):
            async with throttle.attempt(HERS, HOME):
                raise RuntimeError
    assert not await waits(throttle, address=HOME)


async def test_only_failures_are_written(database: Database, throttle: Throttle) -> None:
    await waits(throttle)
    await succeed(throttle)
    assert await database.read(kept) == 0
    await fail(throttle, 2)
    assert await database.read(kept) == 2  # the account's, the address's
    await succeed(throttle)
    assert await database.read(kept) == 1


async def test_the_table_is_bounded(database: Database, clock: Clock) -> None:
    guesses, at = Guesses(database, capacity=100, clock=clock), clock()

    def fill(session: Session) -> None:
        for n in range(300):
            session.add(GuessRow(key=f"old {n}", failures=[at], latest=at - 300 + n, beyond=0))

    await database.write(fill)
    assert not await guesses.failed(Guess(MIXED, "first"))  # who is new sweeps at once
    assert await database.read(kept) == 100
    oldest = await database.read(lambda session: session.exec(select(func.min(GuessRow.latest))).one())
    assert oldest == at - 99, "the latest are kept"
    clock.ahead += 2 * WINDOW + 1
    for _ in range(SWEEP):
        await guesses.failed(Guess(MIXED, "second"))
    assert await database.read(kept) == 101
    await guesses.failed(Guess(MIXED, "second"))
    assert await database.read(lambda session: session.exec(select(col(GuessRow.key))).all()) == [
        Guess(MIXED, "second").key
    ]


async def test_failures_at_once_are_all_counted(another: Callable[[], Database], clock: Clock) -> None:
    processes = [Guesses(another(), clock=clock) for _ in range(3)]
    busy, place = Guess(MIXED, "busy"), Guess(Rule("address", 1_000_000), "busy")
    await asyncio.gather(*(each.failed(busy, place) for each in processes for _ in range(20)))
    counts = await processes[0].counts(busy, place)
    assert [len(counts[each].failures) for each in (busy, place)] == [60, 60]


async def test_a_login_anywhere_is_refused_as_one_here(another: Callable[[], Database]) -> None:
    """Through the door itself, at two processes; an account that is not there is counted as one that is."""
    passwords = Passwords(OPTIONS)
    doors = [
        Sessions(each, OPTIONS, SECRET, passwords, Throttle(each, OPTIONS), Audit(each), Mail(settings.SMTP()))
        for each in (another(), another())
    ]
    hashed = await passwords.hash("plum-orbit-candle-41")
    await add_user(another(), HERS, password_hash=hashed)

    async def code(door: Sessions, email: str, password: str = "wrong", address: str = HOME) -> str:
        try:
            await door.login(email, password, address=address)
        except TerraceError as error:
            return error.code
        return ""

    for email in (HERS, "nobody@example.org"):
        told = [await code(doors[n % 2], email, address=f"203.0.113.{n}") for n in range(4)]
        assert told == ["bad_login"] * 3 + ["too_many_attempts"]
    assert await code(doors[0], HERS, "plum-orbit-candle-41") == "too_many_attempts"
    for door in doors:
        await door.close()
    passwords.close()
