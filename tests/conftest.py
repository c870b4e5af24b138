"""What every test may ask for. Nothing here patches anything: fakes are real implementations of our ports."""

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from terrace.storage import Database, SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.storage.sqlite import engine_for
from terrace.types import Scope
from tests.postgres import Postgres, running

# Tests start Terrace many dozen times: compiled once, not each time, though this shell may forbid to keep what was.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell has what it puts into the background ignore Ctrl-C, and children inherit that; ours are to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes any example slow now and then; how quick things are is what benchmarks are for.
# CI judges each change by the same examples; everywhere else new ones are tried each time.
settings.register_profile("terrace", deadline=None, derandomize="CI" in os.environ, max_examples=50)
settings.load_profile("terrace")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all the tables and no row, to be copied: the migrations take a hundred times as long."""
    path = tmp_path_factory.mktemp("migrated") / "terrace.db"
    engine = engine_for(path, durability="normal")
    with engine.connect() as connection, connection.begin():
        migrate(connection)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A private PostgreSQL server, started once by whoever asks first."""
    with running() as server:
        yield server


# What `database` is: TERRACE_TEST_DATABASE=postgresql pytest ...
POSTGRESQL = os.environ.get("TERRACE_TEST_DATABASE") == "postgresql"


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The address of an empty, migrated PostgreSQL database of this test's own."""
    return postgres.lend()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if not POSTGRESQL and metafunc.definition.get_closest_marker("both"):
        metafunc.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An empty, migrated database. Of tests marked `both`, each runs on SQLite and on PostgreSQL."""
    database = _open(request, getattr(request, "param", "postgresql" if POSTGRESQL else "sqlite"))
    yield database
    await database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def any_database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An empty, migrated database, of one kind and of the other."""
    database = _open(request, request.param)
    yield database
    await database.close()


def _open(request: pytest.FixtureRequest, kind: str) -> Database:
    if kind == "postgresql":
        from terrace.storage.postgresql import PostgreSQLDatabase

        return PostgreSQLDatabase(request.getfixturevalue("postgres_url"), connections=4)
    path: Path = request.getfixturevalue("tmp_path") / "terrace.db"
    shutil.copy(request.getfixturevalue("migrated"), path)
    return SQLiteDatabase(path, durability="normal")


@pytest.fixture
async def elsewhere(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Callable[[], Database]]:
    """Opens `database` once more, as another process has it."""
    opened: list[Database] = []

    def again() -> Database:
        if isinstance(database, SQLiteDatabase):
            opened.append(SQLiteDatabase(database.path, durability="normal"))
        else:
            from terrace.storage.postgresql import PostgreSQLDatabase

            opened.append(PostgreSQLDatabase(request.getfixturevalue("postgres_url"), connections=4))
        return opened[-1]

    yield again
    for each in opened:
        await each.close()


@pytest.fixture(scope="module")
def shared_storage(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where a house that all tests of a module share keeps its rows."""
    if not POSTGRESQL:
        return {"durability": "normal"}
    return {"url": request.getfixturevalue("postgres").create()}


if POSTGRESQL:

    @pytest.fixture(autouse=True)
    def _houses_on_postgresql(postgres_url: str) -> Iterator[None]:
        """Tests that assemble a house, in this process or another, have it on PostgreSQL too."""
        os.environ["TERRACE_STORAGE__URL"] = postgres_url
        os.environ["TERRACE_STORAGE__CONNECTIONS"] = "4"
        yield
        del os.environ["TERRACE_STORAGE__URL"], os.environ["TERRACE_STORAGE__CONNECTIONS"]


@pytest.fixture
def scope() -> Scope:
    return Scope(tenant="acme", user="usr_ada")


@pytest.fixture
def other() -> Scope:
    """Somebody else, who must see nothing of `scope`."""
    return Scope(tenant="globex", user="usr_bob")
