"""The disk of PostgreSQL is full: what is refused is told, what is kept is read, and with room again all goes on."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from tests.faults.slow_upstream import upstream
from tests.faults.small_disk import again_with_one, may_have_one, small_disk
from tests.faults.town import nothing_lost_nothing_twice, town
from tests.postgres import Postgres

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

MEGABYTES = 220
QUESTIONS = 24


@pytest.fixture
def server() -> Iterator[Postgres]:
    with small_disk(MEGABYTES) as folder:
        server = Postgres(folder)
        server.start()
        with server.connection() as connection:
            for setting in ("max_wal_size = '48MB'", "min_wal_size = '32MB'"):
                connection.execute(f"ALTER SYSTEM SET {setting}")
            connection.execute("SELECT pg_reload_conf()")
        yield server
        server.stop()


def fill(folder: Path) -> Path:
    """To the last byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))
    return ballast


def end_the_log(server: Postgres) -> None:
    """Until the server finds no room to write down what it is about to do, and ends all that it does."""
    with suppress(psycopg.OperationalError):
        for _ in range(50):
            with server.connection() as connection:
                connection.execute("SELECT pg_logical_emit_message(true, 'terrace', 'x'), pg_switch_wal()")
        raise AssertionError("there was room")


def look_after(server: Postgres) -> None:
    """As whatever runs it would: started again, if it gave up."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(psycopg.OperationalError), server.connection():
            return
        if not (server.data / "postmaster.pid").exists():
            server.start()
        time.sleep(0.1)
    raise AssertionError(f"it does not come back: {(server.data / 'log').read_text()[-3000:]}")


async def the_disk_is_full(server: Postgres, tmp_path: Path) -> None:
    url = server.create()
    async with upstream(words=40, pause=0.1) as slow, town(tmp_path, url, slow) as here:
        await here.open("api", "worker")
        asking = []
        for number in range(QUESTIONS):
            asking.append(asyncio.create_task(here.ask(number)))
            await asyncio.sleep(0.05)
        ballast = fill(server.data.parent)
        began = time.monotonic()
        async with asyncio.timeout(30):
            while not here.refused["disk_full"]:
                asking.append(asyncio.create_task(here.ask(len(asking))))
                await asyncio.sleep(0.05)
        noticed = time.monotonic() - began
        async with here.client() as client:
            assert (await client.get("/api/conversations")).status_code == 200, "what is kept is read"
        told = asyncio.create_task(here.ready(says=503))
        while not told.done():  # with what room it had kept it may be back before anybody looks
            await asyncio.to_thread(end_the_log, server)
            await asyncio.sleep(0.02)
        ended = await told
        ballast.unlink()
        began = time.monotonic()
        await asyncio.to_thread(look_after, server)
        async with asyncio.timeout(60):
            streams = await asyncio.gather(*asking)
        took = time.monotonic() - began
        print(
            f"told after {noticed:.1f} s, away after {ended:.1f} s more; all {len(asking)} answered {took:.1f} s after"
        )
        print(f"there was room; {here.told}")
        nothing_lost_nothing_twice(url, streams)


if may_have_one():
    test_the_disk_is_full = the_disk_is_full
else:

    def test_the_disk_is_full() -> None:
        again_with_one(__file__, MEGABYTES)
