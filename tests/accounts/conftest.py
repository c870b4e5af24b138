"""The town that tests of people stand in."""

from collections.abc import Iterator

import pytest
from tests.accounts.town import Town

from terrace import settings
from terrace.accounts.passwords import Passwords
from terrace.storage import Database


@pytest.fixture(scope="session")
def passwords() -> Iterator[Passwords]:
    """One for all: it keeps nothing but the list of common passwords, which takes as long to read as half a hash."""
    passwords = Passwords(settings.Accounts())
    yield passwords
    passwords.close()


@pytest.fixture
def town(database: Database, passwords: Passwords) -> Town:
    return Town(database, settings.Accounts(), passwords)
