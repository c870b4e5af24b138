"""What every test may ask for. Nothing here patches anything: fakes are real implementations of our ports."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from terrace.storage import Database, SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.types import Scope

# A busy machine makes any example slow now and then; how quick things are is what benchmarks are for.
settings.register_profile("terrace", deadline=None)
settings.load_profile("terrace")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty, migrated database."""
    database = SQLiteDatabase(tmp_path / "terrace.db", durability="normal")
    await database.write(lambda session: migrate(session.connection()))
    yield database
    await database.close()


@pytest.fixture
def scope() -> Scope:
    return Scope(tenant="acme", user="usr_ada")


@pytest.fixture
def other() -> Scope:
    """Somebody else, who must see nothing of `scope`."""
    return Scope(tenant="globex", user="usr_bob")
