"""The PostgreSQL of `terrace up --postgres`: made once, kept, taken over when it was left running."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from terrace.errors import Invalid, Unavailable
from terrace.settings import Settings
from terrace.storage import open_database
from terrace.storage.postgresql.server import PrivateServer

pytestmark = pytest.mark.faults


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where root's server, which runs as somebody else, can come to; pytest closes its own folders."""
    with TemporaryDirectory(prefix="terrace-private-") as place:
        Path(place).chmod(0o755)
        data = Path(place) / "data"
        data.mkdir(mode=0o700)
        yield data / "postgres"
        PrivateServer(data / "postgres").stop()


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


def test_another_program_with_its_number_is_not_taken_for_it(folder: Path) -> None:
    """As after a power cut: what it wrote down is there, and the number is somebody else's."""
    server = PrivateServer(folder)
    server.start()
    server.stop()
    (folder / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{folder / 'data'}\n1\n1\n\n127.0.0.1\n0\nready\n")
    if os.geteuid() == 0:  # PostgreSQL asks whether it could end it; an ordinary user's own program it leaves alone
        with psycopg.connect(server.start()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    else:
        with pytest.raises(Unavailable, match="log"):
            server.start()
        (folder / "data" / "postmaster.pid").unlink()


def test_what_ended_by_itself_is_started_where_it_was(folder: Path) -> None:
    server = PrivateServer(folder)
    url = server.start()
    assert not server.revive()
    PrivateServer(folder).stop()
    assert server.revive()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_lost_password_is_told(folder: Path) -> None:
    PrivateServer(folder).start()
    (folder / "password").unlink()
    with pytest.raises(Unavailable, match=r"password authentication failed.*log"):
        PrivateServer(folder).start()


def test_its_user_alone_is_let_through_the_data_folder(folder: Path) -> None:
    PrivateServer(folder).start()
    assert folder.parent.stat().st_mode & 0o007 == 0, "what lies beside it is closed by that folder alone"


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
