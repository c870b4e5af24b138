"""One leads at a time; another does as soon as the first gives up, falls silent, or can no longer say it is alive."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text

from terrace.errors import Unavailable
from terrace.storage import Database
from terrace.storage.leading import Leadership
from terrace.types import now


class Work:
    """Remembers who worked, and that nobody else did meanwhile."""

    def __init__(self) -> None:
        self.active: list[str] = []
        self.most = 0
        self.began = asyncio.Queue[str]()

    def of(self, name: str) -> Callable[[], "asyncio.Future[None]"]:
        async def work() -> None:
            self.active.append(name)
            self.most = max(self.most, len(self.active))
            self.began.put_nowait(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.active.remove(name)

        return lambda: asyncio.ensure_future(work())

    async def next(self) -> str:
        return await asyncio.wait_for(self.began.get(), 30)


class Cut:
    """A database that is away when told so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.dialect = database.dialect
        self.away = False
        self.late = 0.0  # seconds until a write that is done is said to be

    async def read(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        return await self._on().read(*args, **kwargs)

    async def write(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        written = await self._on().write(*args, **kwargs)
        await asyncio.sleep(self.late)
        return written

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._database.watch(wake)

    async def close(self) -> None:
        await self._database.close()

    def _on(self) -> Database:
        if self.away:
            raise Unavailable("The database is away.")
        return self._database


def leadership(database: Database, lease: float = 30.0) -> Leadership:
    return Leadership(database, "clock", lease=lease, renew=0.02, look=0.02)


async def stopped(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_of_many_one_leads_and_hands_on_at_once(any_database: Database) -> None:
    work = Work()
    several = {name: leadership(any_database) for name in "abcd"}
    tasks = {name: asyncio.create_task(each.forever(work.of(name))) for name, each in several.items()}
    led = []
    while tasks:
        first = await work.next()
        assert [name for name, each in several.items() if each.leads] == [first]
        led.append(first)
        await stopped(tasks.pop(first))
    assert sorted(led) == list("abcd")
    assert work.most == 1
    assert await any_database.read(lambda session: session.execute(text("SELECT count(*) FROM leaders")).scalar()) == 0


async def test_a_silent_leaders_lease_ends(any_database: Database) -> None:
    until = now() + 0.3
    await any_database.write(
        lambda session: (
            session.execute(
                text("INSERT INTO leaders VALUES ('clock', 'ldr_dead', :until), ('other', 'ldr_other', :later)"),
                {"until": until, "later": until + 100},
            )
            and None
        )
    )
    work = Work()
    task = asyncio.create_task(leadership(any_database).forever(work.of("new")))
    assert await work.next() == "new"
    assert now() > until
    await stopped(task)


async def test_who_cannot_renew_stops_before_another_may_begin(database: Database) -> None:
    work = Work()
    cut = Cut(database)
    first = asyncio.create_task(leadership(cut, lease=3.0).forever(work.of("cut off")))
    assert await work.next() == "cut off"
    second = asyncio.create_task(leadership(database, lease=3.0).forever(work.of("second")))
    cut.away = True
    assert await work.next() == "second"
    assert work.most == 1
    await stopped(second)
    cut.away = False
    assert await work.next() == "cut off", "it leads again when it can"
    await stopped(first)


async def test_a_lease_counts_from_when_it_was_asked_for(database: Database) -> None:
    """A database that was slow to say so has given no longer one."""
    work = Work()
    cut = Cut(database)
    cut.late = 2.0
    first = asyncio.create_task(leadership(cut, lease=3.0).forever(work.of("told late")))
    assert await work.next() == "told late"
    cut.away = True
    second = asyncio.create_task(leadership(database, lease=3.0).forever(work.of("second")))
    assert await work.next() == "second"
    assert work.most == 1
    await stopped(first, second)


async def test_a_lease_that_is_over_when_it_is_told_of_is_none(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    cut = Cut(database)
    cut.late = 2.6
    first = asyncio.create_task(leadership(cut, lease=3.0).forever(work.of("told too late")))
    await asyncio.sleep(2.8)
    cut.late = 0.0
    assert work.began.empty()
    assert "the lease was over" in caplog.text
    assert await work.next() == "told too late", "it asks again"
    await stopped(first)


async def test_work_that_fails_begins_anew(database: Database) -> None:
    times = 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal times
        times += 1
        if times < 3:
            raise RuntimeError("a bug")
        enough.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(leadership(database).forever(work))
    await asyncio.wait_for(enough.wait(), 30)
    await stopped(task)
