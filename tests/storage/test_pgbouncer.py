"""Behind a real PgBouncer in transaction mode, where each transaction may come to another connection."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.pgbouncer import pgbouncer
from tests.postgres import Postgres

from terrace.settings import Settings
from terrace.storage import Database, migrate, open_database
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import Scope


@pytest.fixture(scope="module")
def bouncer(postgres: Postgres) -> Iterator[int]:
    with pgbouncer(postgres) as port:
        yield port


@pytest.fixture
def pooled_url(bouncer: int, postgres: Postgres, postgres_url: str) -> str:
    return postgres_url.replace(f":{postgres.port}/", f":{bouncer}/")


@pytest.fixture
async def pooled(pooled_url: str) -> AsyncIterator[Database]:
    database = PostgreSQLDatabase(pooled_url, connections=8)
    yield database
    await database.close()


def add(session: Session, scope: Scope, name: str) -> int:
    """Says its own number to whoever comes next: it reads, then writes."""
    number = int(session.execute(text("SELECT count(*) FROM collections")).scalar_one())
    row = {"id": f"col_{scope.tenant}_{name}", "tenant": scope.tenant, "name": name}
    session.execute(text("INSERT INTO collections VALUES (:id, :tenant, :name, :name, 0)"), row)
    return number


def count(session: Session, scope: Scope | None = None) -> int:
    return int(session.execute(text("SELECT count(*) FROM collections")).scalar_one())


async def test_works_and_their_tenants_are_kept_apart(pooled: Database) -> None:
    tenants = [Scope("acme"), Scope("globex"), Scope("initech")]
    calls = [pooled.write(add, scope, f"c{number}") for number in range(20) for scope in tenants]
    numbers = await asyncio.gather(*calls)
    assert sorted(numbers) == sorted(list(range(20)) * 3)
    for scope in tenants:
        assert await pooled.read(count, scope) == 20
    assert await pooled.read(count) == 60


async def test_who_cannot_listen_looks(pooled: Database, postgres_url: str) -> None:
    await _is_woken(pooled, postgres_url)


async def test_who_is_told_where_to_listen_listens(pooled_url: str, postgres_url: str) -> None:
    database = PostgreSQLDatabase(pooled_url, listen_url=postgres_url)
    await _is_woken(database, postgres_url)
    await database.close()


async def _is_woken(database: Database, url: str) -> None:
    woken = asyncio.Event()
    database.watch(woken.set)
    other = PostgreSQLDatabase(url)
    async with asyncio.timeout(20):
        await woken.wait()
        woken.clear()
        await other.write(add, Scope("acme"), "news")
        await woken.wait()
    await other.close()


async def test_a_database_is_migrated_through_it(bouncer: int, postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create(empty=True)
    settings = Settings(data=tmp_path, storage={"url": url.replace(f":{postgres.port}/", f":{bouncer}/")})
    database = await open_database(settings)
    assert await database.read(lambda session: migrate.current(session.connection())) == migrate.head()
    await database.close()
    postgres.drop(url)
