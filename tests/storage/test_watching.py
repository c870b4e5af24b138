"""The line to PostgreSQL: word of what others write is not lost or held up, however it crosses our own; and a process
that ends does not wait for a silent one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.gate import gate
from tests.pgbouncer import pgbouncer
from tests.postgres import Postgres

from terrace.errors import Unavailable
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.storage.postgresql.doubting import Doubt
from terrace.storage.postgresql.engine import engine_for
from terrace.storage.postgresql.watching import Watch

NEVER = 3600.0  # seconds: no look of its own comes to help

Watching = Callable[[int], AbstractAsyncContextManager[Watch]]


@pytest.fixture
def watching(postgres: Postgres, postgres_url: str) -> Watching:
    """A watch whose connection goes through a port."""

    @asynccontextmanager
    async def watching(port: int) -> AsyncIterator[Watch]:
        url = postgres_url.replace(f":{postgres.port}/", f":{port}/")
        doubt = Doubt(engine_for(url), lambda away: None)
        watch = Watch(url, doubt, knock=NEVER)
        yield watch
        await asyncio.to_thread(watch.close)
        await asyncio.to_thread(doubt.close)

    return watching


async def test_what_others_say_while_we_speak_is_heard_at_once(
    watching: Watching, postgres: Postgres, postgres_url: str
) -> None:
    woken = asyncio.Event()
    async with asyncio.timeout(30), gate(postgres.port) as line, watching(line.port) as watch:
        watch.add(woken.set, asyncio.get_running_loop())
        await woken.wait()  # it listens now
        await asyncio.sleep(0.1)  # and waits: else our own bell would wake it once more, whatever it overlooks
        woken.clear()
        line.back.shut()
        watch.tell()
        with postgres.connection(postgres_url) as other:
            other.execute("NOTIFY terrace, 'other'")
        await line.back.holds(b"terrace\0", 2)  # our own word and the other's
        line.back.open()  # both come with the answer that we wait for
        await woken.wait()


async def test_what_others_write_before_the_first_look_is_seen(
    watching: Watching, postgres: Postgres, postgres_url: str
) -> None:
    """Behind a pooler, where nobody can listen."""
    woken = asyncio.Event()
    with pgbouncer(postgres) as port:
        async with asyncio.timeout(30), gate(port) as line, watching(line.port) as watch:
            line.there.shut(at=b"pg_current_snapshot")
            watch.add(woken.set, asyncio.get_running_loop())
            await line.there.holds(b"pg_current_snapshot")
            woken.clear()  # whoever was woken has read, and found nothing
            with postgres.connection(postgres_url) as other:
                other.execute("INSERT INTO job_workers VALUES ('other', 'here', 1, 'x', 0, 0)")
            line.there.open()
            await woken.wait()


async def test_who_ends_does_not_wait_for_a_silent_database(
    postgres: Postgres, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def work(session: Session) -> int:
        return int(session.execute(text("SELECT count(*) FROM jobs")).scalar_one())

    async with asyncio.timeout(60), gate(postgres.port) as line:
        database = PostgreSQLDatabase(
            postgres_url.replace(f":{postgres.port}/", f":{line.port}/"), connections=1, listen_url=postgres_url
        )
        assert await database.write(work) == 0  # of what is read nobody hears when its transaction ends
        line.there.shut()
        waiting = [asyncio.create_task(database.read(work)) for _ in range(3)]
        await line.there.holds(b"BEGIN")
        database.end_within(0.05)
        for each in (*waiting, asyncio.create_task(database.write(work))):
            with pytest.raises(Unavailable) as told:
                await each
            assert told.value.code == "database_unreachable"
        await database.close()
    assert "fell silent" not in caplog.text, "that would have taken ten seconds"
    assert "waited for no more" in caplog.text
