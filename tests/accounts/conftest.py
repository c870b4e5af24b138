"""The town that tests of people stand in."""

from collections.abc import Iterator

import pytest
from tests.accounts.town import Town

from terrace import settings
from terrace.accounts.passwords import Passwords
from terrace.storage import Database


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(settings.Accounts())
    yield passwords
    passwords.close()


@pytest.fixture
def town(database: Database, passwords: Passwords) -> Town:
    return Town(database, settings.Accounts(), passwords)
