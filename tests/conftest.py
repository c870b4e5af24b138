"""What every test may ask for. Nothing here patches anything: fakes are real implementations of our ports."""

import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from terrace.storage import Database, SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.storage.sqlite import engine_for
from terrace.types import Scope

# Tests start Terrace many dozen times: compiled once, not each time, though this shell may forbid to keep what was.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A busy machine makes any example slow now and then; how quick things are is what benchmarks are for.
settings.register_profile("terrace", deadline=None)
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


@pytest.fixture
async def database(migrated: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty, migrated database."""
    shutil.copy(migrated, tmp_path / "terrace.db")
    database = SQLiteDatabase(tmp_path / "terrace.db", durability="normal")
    yield database
    await database.close()


@pytest.fixture
def scope() -> Scope:
    return Scope(tenant="acme", user="usr_ada")


@pytest.fixture
def other() -> Scope:
    """Somebody else, who must see nothing of `scope`."""
    return Scope(tenant="globex", user="usr_bob")
