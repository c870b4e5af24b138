"""Who is cut off, or stopped, amid a transaction leaves no locks behind for long."""

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.faults.proxy import proxy
from tests.postgres import Postgres

from terrace.errors import Unavailable
from terrace.jobs.outlook import CLAIM_SECONDS, LANES, alone_with_outlook
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.storage.postgresql.engine import engine_for

pytestmark = pytest.mark.faults

HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"


async def held(beside: Any, times: int, within: float = 60) -> None:
    async with asyncio.timeout(within):
        while beside.execute(HELD).fetchone() != (times,):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_what_was_begun_and_fell_silent_holds_nothing_for_long(postgres: Postgres, postgres_url: str) -> None:
    """Amid messages that belong together: the server waits for the rest of them without a bound of its own."""
    silent = threading.Event()

    def work(session: Session) -> None:
        driver: Any = session.connection().connection.driver_connection
        with driver.pipeline():
            driver.execute("SELECT pg_advisory_xact_lock(11)")
            silent.wait()
            driver.execute("SELECT 1")

    async with proxy(postgres.port) as network:
        database = PostgreSQLDatabase(network.through(postgres_url), connections=1, listen_url=postgres_url)
        with postgres.connection(postgres_url) as beside:
            working = asyncio.create_task(database.write(work))
            await held(beside, 1)
            network.fall_silent()
            silent.set()
            with pytest.raises(Unavailable) as told:
                await working
            assert told.value.code == "database_unreachable"
            assert beside.execute(HELD).fetchone() == (1,), "the server does not know"
            network.heal()
            await held(beside, 0)
            assert await database.read(lambda session: session.execute(text("SELECT 1")).scalar_one()) == 1
        await database.close()


async def test_who_stops_amid_a_claim_holds_nobody_up(postgres: Postgres, postgres_url: str) -> None:
    with engine_for(postgres_url).connect() as claiming, postgres.connection(postgres_url) as beside:
        claiming.exec_driver_sql("BEGIN")
        assert alone_with_outlook(Session(claiming), "here", LANES).running == {}
        await held(beside, 1)
        await held(beside, 0, within=2 * CLAIM_SECONDS)
        claiming.invalidate()
