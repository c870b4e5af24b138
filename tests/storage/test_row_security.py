"""The second wall: whoever forgets to ask for a tenant's rows only gets no others all the same.

Tried as the application role, and as an ordinary user who owns the tables.
"""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlmodel import Session
from tests.postgres import Postgres

from terrace.storage import as_owner, every_tenant
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.storage.postgresql.migrating import migrate_once
from terrace.types import Scope

ACME, GLOBEX = Scope("acme"), Scope("globex")
INSERT = "INSERT INTO collections (id, tenant_id, name, name_key, created_at) VALUES (%s, %s, %s, %s, 0)"
TENANTS_TABLES = """SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity, p.polname IS NOT NULL
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_policy p ON p.polrelid = c.oid
WHERE c.relkind = 'r' AND a.attname = 'tenant_id' AND NOT a.attisdropped"""


@pytest.fixture(params=["terrace_app", "owner"])
def login(request: pytest.FixtureRequest, postgres: Postgres, postgres_url: str) -> Iterator[str]:
    """The address as somebody who is no superuser: the application role, or who owns the tables."""
    with postgres.connection(postgres_url) as connection:
        if request.param == "terrace_app":
            connection.execute("DROP ROLE IF EXISTS visitor")
            connection.execute("CREATE ROLE visitor LOGIN IN ROLE terrace_app")
        else:
            connection.execute("DROP ROLE IF EXISTS visitor")
            connection.execute("CREATE ROLE visitor LOGIN")
            for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
                connection.execute(f"ALTER TABLE {name} OWNER TO visitor")
        for tenant in ("acme", "globex"):
            connection.execute(INSERT, (f"col_{tenant}", tenant, "Default", "default"))
    yield postgres_url.replace("postgres@", "visitor@")
    with postgres.connection(postgres_url) as connection:
        connection.execute("REASSIGN OWNED BY visitor TO postgres")
        connection.execute("DROP OWNED BY visitor")
        connection.execute("DROP ROLE visitor")


@pytest.fixture
def connection(login: str) -> Iterator["psycopg.Connection[Any]"]:
    with psycopg.connect(login) as connection:
        yield connection


def as_tenant(connection: "psycopg.Connection[Any]", tenant: str) -> None:
    connection.execute("SELECT set_config('terrace.tenant', %s, true)", (tenant,))


def seen(connection: "psycopg.Connection[Any]") -> list[str]:
    return [row[0] for row in connection.execute("SELECT id FROM collections ORDER BY id").fetchall()]


def test_only_ones_own_rows_are_seen(connection: "psycopg.Connection[Any]") -> None:
    as_tenant(connection, "acme")
    assert seen(connection) == ["col_acme"]
    assert connection.execute("SELECT count(*) FROM collections WHERE tenant_id = 'globex'").fetchone() == (0,)
    as_tenant(connection, "*")
    assert seen(connection) == ["col_acme", "col_globex"]


def test_no_tenant_sees_nothing_and_may_nothing(connection: "psycopg.Connection[Any]") -> None:
    assert seen(connection) == []
    as_tenant(connection, "acme")
    connection.commit()  # it was said for that transaction alone
    assert seen(connection) == []
    assert connection.execute("UPDATE collections SET name = 'x'").rowcount == 0
    assert connection.execute("DELETE FROM collections").rowcount == 0
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        connection.execute(INSERT, ("col_new", "acme", "New", "new"))


def test_others_rows_can_be_neither_made_nor_changed_nor_deleted(connection: "psycopg.Connection[Any]") -> None:
    as_tenant(connection, "acme")
    assert connection.execute("UPDATE collections SET name = 'x' WHERE id = 'col_globex'").rowcount == 0
    assert connection.execute("DELETE FROM collections WHERE id = 'col_globex'").rowcount == 0
    connection.execute(INSERT, ("col_ours", "acme", "Ours", "ours"))
    with pytest.raises(InsufficientPrivilege, match="row-level security"), connection.transaction():
        connection.execute(INSERT, ("col_new", "globex", "New", "new"))


def test_a_row_cannot_be_given_away(connection: "psycopg.Connection[Any]") -> None:
    as_tenant(connection, "acme")
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        connection.execute("UPDATE collections SET tenant_id = 'globex' WHERE id = 'col_acme'")


def test_nobody_switches_it_off_from_within(connection: "psycopg.Connection[Any]") -> None:
    connection.execute("SET LOCAL row_security = off")
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        seen(connection)


def test_every_table_with_a_tenant_is_behind_the_wall(postgres: Postgres, postgres_url: str) -> None:
    with postgres.connection(postgres_url) as connection:
        tables = connection.execute(TENANTS_TABLES).fetchall()
    assert len(tables) > 40
    assert [row for row in tables if not all(row[1:])] == []


# -- through the database


def ids(session: Session, scope: Scope | None = None) -> list[str]:
    """It forgets to ask whose they are."""
    return list(session.execute(text("SELECT id FROM collections ORDER BY id")).scalars())


@pytest.fixture(params=["superuser", "visitor"])
async def walled(request: pytest.FixtureRequest, login: str) -> AsyncIterator[PostgreSQLDatabase]:
    url = login if request.param == "visitor" else login.replace("visitor@", "postgres@")
    database = PostgreSQLDatabase(url, connections=2)
    yield database
    await database.close()


async def test_a_work_sees_the_rows_of_the_scope_it_is_given(walled: PostgreSQLDatabase) -> None:
    scope = ACME
    for way in (walled.read, walled.write):
        assert await way(ids, ACME) == ["col_acme"]
        assert await way(ids, scope=GLOBEX) == ["col_globex"]
        assert await way(partial(ids, scope=ACME)) == ["col_acme"]
        assert await way(lambda session: ids(session, GLOBEX)) == ["col_acme", "col_globex"]
        assert await way(lambda session: ids(session, scope)) == ["col_acme"]
        assert await way(every_tenant(lambda session, scope: ids(session)), ACME) == ["col_acme", "col_globex"]
        assert await way(ids) == ["col_acme", "col_globex"]
        assert await way(ids, Scope("a'; DROP TABLE x; --")) == []


async def test_a_work_cannot_write_to_others(walled: PostgreSQLDatabase) -> None:
    def steal(session: Session, scope: Scope) -> int:
        return int(session.execute(text("UPDATE collections SET name = 'mine'")).rowcount)  # type: ignore[attr-defined]

    def plant(session: Session, scope: Scope) -> None:
        session.execute(text("INSERT INTO collections VALUES ('col_x', 'globex', 'x', 'x', 0)"))

    assert await walled.write(steal, ACME) == 1
    with pytest.raises(Exception, match="row-level security"):
        await walled.write(plant, ACME)


async def test_the_wall_can_be_taken_down(login: str) -> None:
    database = PostgreSQLDatabase(login, row_security=False)
    assert await database.read(ids, ACME) == ["col_acme", "col_globex"]
    await database.close()


async def test_the_superuser_works_as_somebody_the_wall_holds(postgres_url: str, postgres: Postgres) -> None:
    def who(session: Session) -> str:
        return str(session.execute(text("SELECT current_user")).scalar_one())

    database = PostgreSQLDatabase(postgres_url, connections=2)
    assert await database.read(who) == "terrace_app"
    assert await database.write(as_owner(lambda session: who(session))) == "postgres"
    await database.close()


async def test_an_ordinary_user_can_migrate_and_work(postgres: Postgres) -> None:
    url = postgres.create(empty=True)
    name = url.rpartition("/")[2]
    with postgres.connection(url) as connection:
        connection.execute("CREATE EXTENSION vector")  # what only a superuser may
        connection.execute("CREATE ROLE tenant_of_a_cloud LOGIN")
        connection.execute(f"ALTER DATABASE {name} OWNER TO tenant_of_a_cloud")
    database = PostgreSQLDatabase(url.replace("postgres@", "tenant_of_a_cloud@"), connections=2)
    await database.write(migrate_once)
    await database.write(lambda session, scope: session.execute(text(INSERT % ("'c'", "'acme'", "'n'", "'n'"))), ACME)
    assert await database.read(ids, ACME) == ["c"]
    assert await database.read(ids, GLOBEX) == []
    await database.close()
    postgres.drop(url)
    with postgres.connection() as connection:
        connection.execute("DROP ROLE tenant_of_a_cloud")
