"""The town that tests of people stand in; and databases made by copying one, for they are many."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.accounts.town import Town

from terrace import settings
from terrace.accounts.passwords import Passwords
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.storage.sqlite import engine_for


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all the tables and no row."""
    path = tmp_path_factory.mktemp("migrated") / "terrace.db"
    engine = engine_for(path, durability="normal")
    with engine.connect() as connection, connection.begin():
        migrate(connection)
    engine.dispose()
    return path


@pytest.fixture
async def database(migrated: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty, migrated database."""
    shutil.copy(migrated, tmp_path / "terrace.db")
    database = SQLiteDatabase(tmp_path / "terrace.db", durability="normal")
    yield database
    await database.close()


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(settings.Accounts())
    yield passwords
    passwords.close()


@pytest.fixture
def town(database: Database, passwords: Passwords) -> Town:
    return Town(database, settings.Accounts(), passwords)
