"""Real PostgreSQL and MariaDB, asked by somebody whose account there could do anything: they can read, and no more."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest
from tests.campaigns.databases.conftest import Room
from tests.campaigns.databases.servers import PASSWORD, READER, Server

from terrace.campaigns.databases.asking import mysql, postgresql
from terrace.campaigns.databases.base import Target
from terrace.campaigns.databases.statement import checked
from terrace.errors import Invalid, TerraceError
from terrace.jobs.processes import Processes
from terrace.types import Scope

ASK = {"postgresql": postgresql.ask, "mysql": mysql.ask}


@contextmanager
def refused(*codes: str) -> Iterator[Any]:
    with pytest.raises(TerraceError) as told:
        yield told
    assert told.value.code in codes, (told.value.code, told.value.message)
    assert READER not in told.value.message
    assert PASSWORD not in told.value.message


def target(server: Server, seconds: float = 30.0, **more: Any) -> Target:
    given = {"host": "127.0.0.1", "address": "127.0.0.1", "port": server.port, "database": "shop", "tls": "off"}
    return Target(**{"kind": server.kind, "seconds": seconds, "user": READER, "password": PASSWORD, **given, **more})


async def test_rows_are_shown_as_a_person_would_write_them(room: Room, scope: Scope, server: Server) -> None:
    added = await room.databases.add(scope, room.new(server))
    shown = await room.databases.query(
        scope, added.id, "SELECT email, name, born, spent, 1 = 1 AS kept, NULL AS nothing FROM customers ORDER BY name;"
    )
    assert shown.columns == ["email", "name", "born", "spent", "kept", "nothing"]
    assert [row["name"] for row in shown.rows] == ["Ada Lovelace", "Alan Turing", "Grace Hopper"]
    assert (shown.rows[0]["born"], shown.rows[0]["spent"], shown.rows[0]["nothing"]) == ("1815-12-10", "12.5", "")
    assert shown.mapping["email"] == "email"
    assert shown.mapping["born"] == "born"
    assert not shown.more


async def test_twenty_rows_are_shown_of_many(room: Room, scope: Scope, postgresql: Server) -> None:
    added = await room.databases.add(scope, room.new(postgresql))
    query = "SELECT 'p' || generate_series(1, 1000000000) || '@example.org' AS email"
    shown = await room.databases.query(scope, added.id, query)
    assert len(shown.rows) == 20
    assert shown.more


async def test_contacts_come_from_a_query(room: Room, scope: Scope, other: Scope, server: Server) -> None:
    added = await room.databases.add(scope, room.new(server))
    query = "SELECT email, name, city FROM customers"
    examined = await room.databases.examine(scope, added.id, query, {"city": "town"})
    assert (examined.rows, examined.new, examined.mapping["city"]) == (3, 3, "town")
    assert await room.contacts.lists(scope) == []
    for expected in ({"new": 3, "unchanged": 0}, {"new": 0, "unchanged": 3}):
        job_id, made = await room.databases.start(scope, added.id, query, "Customers", {"city": "town"})
        job = await room.jobs.wait(scope, job_id, 20)
        assert job.state == "succeeded", job.error
        assert job.result is not None
        assert {name: job.result[name] for name in expected} == expected
    found, _ = await room.contacts.list(scope, list_id=made.id)
    assert {(each.email, each.fields["town"]) for each in found} == {
        ("ada@example.org", "London"),
        ("alan@example.org", "Wilmslow"),
        ("grace@example.org", "New York"),
    }
    with refused("database_missing"):
        await room.databases.query(other, added.id, query)
    with refused("database_missing"):
        await room.databases.start(other, added.id, query, "Customers", {})


WRITES = [
    "INSERT INTO customers (email) VALUES ('eve@example.org')",
    "DELETE FROM customers",
    "UPDATE customers SET name = 'x'",
    "DROP TABLE customers",
    "CREATE TABLE more (a INT)",
    "SELECT * FROM customers; DELETE FROM customers",
    "SELECT 1; SELECT 2",
    "",
    "SET SESSION foo = 1",
    "SHOW TABLES",
    "EXPLAIN SELECT 1",
    "BEGIN",
    "SELECT * FROM customers FOR UPDATE",
]
POSTGRESQL = [
    "WITH gone AS (DELETE FROM customers RETURNING *) SELECT * FROM gone",
    "SELECT * INTO copied FROM customers",
    "COPY customers TO '/srv/customers'",
    "SELECT pg_sleep(5)",
    'SELECT "pg_sleep"(5)',
    "SELECT pg_catalog.pg_sleep(5)",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT query_to_xml('select 1', true, true, '')",
    "SELECT 'a\\'; DELETE FROM customers; --'",
    "SELECT E'\\'; DELETE FROM customers; --'; DELETE FROM customers",
    'SELECT U&"pg\\005fsleep"(5)',
    "SELECT $$;$$; DELETE FROM customers",
    "SELECT 1 /* /* */ */; DELETE FROM customers",
    "SELECT pg_terminate_backend(pg_backend_pid())",
]
MARIADB = [
    "SELECT * FROM customers INTO OUTFILE '/srv/customers.txt'",
    "SELECT name FROM customers LIMIT 1 INTO @name",
    "SELECT load_file('/etc/passwd')",
    "SELECT sleep(5)",
    "SELECT `sleep`(5)",
    "SELECT SLEEP (5)",
    "SELECT benchmark(1000000000, sha2('x', 512))",
    "SELECT get_lock('a', 10)",
    "SELECT /*! sleep(5) */",
    "SELECT /*M! sleep(5) */",
    "SELECT /*+ MAX_EXECUTION_TIME(100000) */ 1",
    "SELECT '\\''; DELETE FROM customers; -- '",
    "SELECT 1 # one\n; DELETE FROM customers",
    "SELECT * FROM customers LOCK IN SHARE MODE",
]
REFUSALS = ("not_a_query", "several_statements", "bad_query", "denied_function")


@pytest.mark.parametrize("query", WRITES + POSTGRESQL)
def test_postgresql_is_asked_nothing_but_to_read(query: str) -> None:
    with refused(*REFUSALS):
        checked("postgresql", query)


@pytest.mark.parametrize("query", WRITES + MARIADB)
def test_mysql_is_asked_nothing_but_to_read(query: str) -> None:
    with refused(*REFUSALS):
        checked("mysql", query)


async def test_no_door_is_without_that_wall(room: Room, scope: Scope, postgresql: Server) -> None:
    added = await room.databases.add(scope, room.new(postgresql), test=False)
    with refused("not_a_query"):
        await room.databases.query(scope, added.id, "DELETE FROM customers")
    with refused("not_a_query"):
        await room.databases.examine(scope, added.id, "DELETE FROM customers", {})
    with refused("not_a_query"):
        await room.databases.start(scope, added.id, "DELETE FROM customers", "Customers", {})


BEHIND = {
    "postgresql": [
        "DELETE FROM customers",
        "WITH gone AS (DELETE FROM customers RETURNING *) SELECT * FROM gone",
        "SELECT 1; DELETE FROM customers",
        "SELECT 1; COMMIT; DELETE FROM customers",
        "SELECT * INTO copied FROM customers",
        "SELECT * FROM customers FOR UPDATE",
        "SELECT nextval('numbers')",
        "SELECT set_config('transaction_read_only', 'off', false)",
    ],
    "mysql": [
        "DELETE FROM customers",
        "SELECT 1; DELETE FROM customers",
        "UPDATE customers SET name = 'x'",
        "INSERT INTO notes VALUES ('x')",
        "CREATE TABLE more (a INT)",
        "CALL nothing()",
    ],
}


@pytest.mark.parametrize("number", range(8))
def test_behind_the_first_wall_stands_the_database_itself(server: Server, number: int) -> None:
    """Were a statement to slip through, it would still be refused there, or change nothing."""
    queries = BEHIND[server.kind]
    query = queries[number % len(queries)]
    with refused("query_refused"), ASK[server.kind](target(server), query) as (_, rows):
        list(rows)
    with ASK[server.kind](target(server), "SELECT count(*), min(name) FROM customers") as (_, rows):
        assert [tuple(row) for row in rows] == [(3, "Ada Lovelace")]


SLOW = {
    "postgresql": "SELECT count(*) FROM generate_series(1, 100000000000)",
    "mysql": "SELECT count(*) FROM seq_1_to_1000000000 a, seq_1_to_1000000000 b",
}


async def test_a_query_that_takes_too_long_is_stopped(
    make: Any, processes: Processes, scope: Scope, server: Server
) -> None:
    room: Room = make(processes, query_timeout=0.3)
    added = await room.databases.add(scope, room.new(server), test=False)
    with refused("query_timeout") as told:
        await room.databases.query(scope, added.id, SLOW[server.kind])
    assert "0.3 seconds" in told.value.message
    asleep = {"postgresql": "SELECT pg_sleep(9)", "mysql": "SELECT sleep(9) FROM customers"}[server.kind]
    with refused("query_timeout"), ASK[server.kind](target(server, 0.3), asleep) as (_, rows):
        list(rows)


async def test_more_rows_than_allowed_are_refused(
    make: Any, processes: Processes, scope: Scope, server: Server
) -> None:
    room: Room = make(processes, max_import_rows=2)
    added = await room.databases.add(scope, room.new(server))
    with refused("too_many_rows"):
        await room.databases.examine(scope, added.id, "SELECT email FROM customers", {})


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"password": "another-one"}, "bad_login"),
        ({"user": "nobody_here", "password": "x1x2"}, "bad_login"),
        ({"tls": "require"}, "no_tls"),
        ({"tls": "verify"}, "no_tls"),
        ({"port": 1}, "unreachable"),
        ({"host": "no-such-host.invalid"}, "unreachable"),
        ({"database": "elsewhere"}, "no_database"),
    ],
)
async def test_what_is_wrong_is_told_without_credentials(
    room: Room, scope: Scope, server: Server, wrong: dict[str, Any], code: str
) -> None:
    with refused(code) as told:
        await room.databases.add(scope, room.new(server, **wrong))
    for value in (wrong.get("password"), wrong.get("user")):
        assert value is None or value not in told.value.message
    assert await room.databases.list(scope) == []


async def test_what_the_database_says_of_a_query_is_told(room: Room, scope: Scope, server: Server) -> None:
    added = await room.databases.add(scope, room.new(server))
    with refused("query_refused") as told:
        await room.databases.query(scope, added.id, f"SELECT email FROM customer_of_{PASSWORD.replace('-', '_')}")
    assert "customer_of" in told.value.message
    with refused("query_refused") as told:  # whoever writes their password into a query does not find it in a log
        await room.databases.query(scope, added.id, f'SELECT "{PASSWORD}" FROM no_table_like_this')


@pytest.mark.parametrize("query", ["SELECT 1 AS a, 2 AS a", 'SELECT 1 AS email, 2 AS "Email"'])
async def test_columns_of_one_name_are_refused(room: Room, scope: Scope, postgresql: Server, query: str) -> None:
    added = await room.databases.add(scope, room.new(postgresql))
    with refused("duplicate_heading"):
        await room.databases.query(scope, added.id, query)


async def test_a_private_address_is_refused_unless_the_operator_allows_it(
    make: Any, processes: Processes, scope: Scope, postgresql: Server
) -> None:
    room: Room = make(processes, allow=("10.0.0.0/8",))
    for host in ("127.0.0.1", "localhost", "169.254.169.254", "::1", "0.0.0.0", "::ffff:127.0.0.1"):
        with pytest.raises(Invalid) as told:
            await room.databases.add(scope, room.new(postgresql, host=host))
        assert told.value.code == "private_target", host


@pytest.mark.parametrize(
    "host", ["/var/run/postgresql", "a,b", "a b", "http://x", "user@host", "", "@abstract", "h\0st", "a" * 300]
)
async def test_a_host_is_a_host(room: Room, scope: Scope, postgresql: Server, host: str) -> None:
    with refused("bad_host"):
        await room.databases.add(scope, room.new(postgresql, host=host))


@pytest.mark.parametrize("name", ["host=evil", "postgresql://evil/shop", "a\0b"])
async def test_a_databases_name_is_no_connection_string(
    room: Room, scope: Scope, postgresql: Server, name: str
) -> None:
    with refused("bad_database"):
        await room.databases.add(scope, room.new(postgresql, database=name))


async def test_credentials_are_sealed_and_shown_nowhere(room: Room, scope: Scope, postgresql: Server) -> None:
    new = room.new(postgresql)
    added = await room.databases.add(scope, new)
    rows: Any = await room.storage.read(
        lambda session: session.connection().exec_driver_sql("SELECT * FROM databases").all()
    )
    for seen in (repr(new), repr(added), str(asdict(added)), repr(rows), repr(target(postgresql))):
        assert PASSWORD not in seen
        assert READER not in seen


async def test_a_database_that_goes_away_fails_the_import_and_says_so(
    room: Room, scope: Scope, postgresql: Server
) -> None:
    added = await room.databases.add(scope, room.new(postgresql, port=1), test=False)
    job_id, _ = await room.databases.start(scope, added.id, "SELECT email FROM customers", "Customers", {})
    job = await room.jobs.wait(scope, job_id, 20)
    assert job.state == "failed"
    assert job.error is not None
    assert "cannot be reached" in job.error.message


async def test_names_are_each_given_once(room: Room, scope: Scope, other: Scope, postgresql: Server) -> None:
    added = await room.databases.add(scope, room.new(postgresql), test=False)
    with refused("database_exists"):
        await room.databases.add(scope, room.new(postgresql, name="SHOP"), test=False)
    await room.databases.add(other, room.new(postgresql), test=False)
    with refused("database_missing"):
        await room.databases.remove(other, added.id)
    await room.databases.remove(scope, added.id)
    assert await room.databases.list(scope) == []
    assert len(await room.databases.list(other)) == 1
