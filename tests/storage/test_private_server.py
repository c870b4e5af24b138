"""The PostgreSQL of `terrace up --postgres`: made once, kept, taken over when it was left running."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from terrace.errors import Invalid
from terrace.settings import Settings
from terrace.storage import open_database
from terrace.storage.postgresql.server import PrivateServer


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for each in (tmp_path, *tmp_path.parents):
        if each.is_relative_to("/tmp") and each != Path("/tmp"):
            each.chmod(each.stat().st_mode | 0o001)  # root's server runs as somebody else
    folder = tmp_path / "postgres"
    yield folder
    PrivateServer(folder).stop()


async def test_it_is_made_kept_and_taken_over(folder: Path, tmp_path: Path) -> None:
    server = PrivateServer(folder)
    url = server.start()
    assert (folder / "url").read_text() == url + "\n"
    assert (folder / "url").stat().st_mode & 0o077 == 0
    database = await open_database(Settings(data=tmp_path, storage={"url": url, "connections": 2}))
    await database.close()
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO job_workers VALUES ('w', 'h', 1, 'p', 0, 0)")
        strong = connection.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        assert strong.fetchone() == (False,), "the wall between tenants must hold who works with it"
    assert PrivateServer(folder).start() == url, "it runs, so it is taken over"
    server.stop()
    assert not (folder / "url").exists()
    with psycopg.connect(PrivateServer(folder).start()) as connection:
        assert connection.execute("SELECT id FROM job_workers").fetchall() == [("w",)]


def test_it_wants_a_password(folder: Path) -> None:
    url = PrivateServer(folder).start()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.partition("://")[0] + "://terrace:wrong@" + url.rpartition("@")[2])


def test_a_folder_nobody_else_may_enter_is_told_to_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        return  # whoever is not root runs it as themselves
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "data").mkdir()
    with pytest.raises(Invalid, match="ordinary user"):
        PrivateServer(closed / "data" / "postgres").start()
    assert closed.stat().st_mode & 0o777 == 0o700
