"""SQLite in WAL mode: one writer thread with group commit, a few reader threads.

Each writer's work runs in its own savepoint, and all that is waiting shares one commit: a commit
with FULL sync costs about 200 us, a savepoint about 20. Works in bulk are long; they come one at a time, in turn with
all others that wait, so that whoever asks something waits for one of them at most.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Concatenate, ParamSpec, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from terrace.errors import Invalid, Unavailable
from terrace.storage.database import callbacks, says
from terrace.storage.statements import SHARED, Alike
from terrace.storage.works import Work, call_soon, hand_over

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)

GROUP = 512  # most works in one commit
BUSY_MS = 15_000  # how long to wait for another process's writer
WATCH_SECONDS = 0.01  # a look costs 4 us and a turn of the thread; who works in another process waits for it twice


def engine_for(path: Path, *, durability: str = "full") -> Engine:
    """An engine whose transactions we begin ourselves (the driver's own legacy mode commits behind our back)."""
    engine = create_engine(
        f"sqlite+terrace:///{path}",
        poolclass=NullPool,
        connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000},
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
        **SHARED,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {BUSY_MS}",
            "journal_mode = WAL",
            f"synchronous = {durability.upper()}",
            "foreign_keys = ON",
            "temp_store = MEMORY",
            "cache_size = -8000",
            "mmap_size = 268435456",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


class Dialect(Alike, SQLiteDialect_pysqlite):
    """Each work has a savepoint; straight to the driver it costs a third of what SQLAlchemy's way does."""

    supports_statement_cache = True

    def do_savepoint(self, connection: Connection, name: str) -> None:
        _execute(connection, f"SAVEPOINT {name}")

    def do_release_savepoint(self, connection: Connection, name: str) -> None:
        _execute(connection, f"RELEASE SAVEPOINT {name}")

    def do_rollback_to_savepoint(self, connection: Connection, name: str) -> None:
        _execute(connection, f"ROLLBACK TO SAVEPOINT {name}")


def _execute(connection: Connection, statement: str) -> None:
    try:
        _driver(connection).execute(statement)
    except sqlite3.Error as error:
        raise OperationalError(statement, None, error) from error


class SQLiteDatabase:
    dialect = "sqlite"

    def __init__(self, path: Path, *, readers: int = 4, durability: str = "full") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._engine = engine_for(path, durability=durability)
        self._local = threading.local()
        self._reading: list[Connection] = []
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="db-read")
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._watchers: dict[Callable[[], None], asyncio.AbstractEventLoop] = {}
        self._seen = -1  # the data_version when we last looked
        self._closed = False
        self._ending: asyncio.TimerHandle | None = None
        self._ended = False  # nobody waits for the file any more
        self._writer = threading.Thread(target=self._write_forever, name="db-write", daemon=True)
        self._writer.start()

    async def read(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._closed:
            raise Unavailable("The database is closed: the server is shutting down.")
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._read, lambda session: work(session, *args, **kwargs)
        )

    async def write(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._closed:
            raise Unavailable("The database is closed: the server is shutting down.")
        if self._ended:
            raise Unavailable("The database is busy, and the server is shutting down.", code="database_busy")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._queue.put(Work(lambda session: work(session, *args, **kwargs), future, loop, says(work, "in_bulk")))
        return await future

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        self._watchers = {**self._watchers, wake: loop}
        self._queue.put(Work(lambda session: None, loop.create_future(), loop))  # the writer begins to look
        if self._seen >= 0:
            call_soon(loop, wake)

        def stop() -> None:
            self._watchers = {each: loop for each, loop in self._watchers.items() if each != wake}

        return stop

    def end_within(self, seconds: float) -> None:
        self._ending = self._ending or asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        """What another process holds up has an end of its own; nothing more begins to wait for it."""
        self._ended = True

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._ending is not None:
            self._ending.cancel()
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._reading:
            connection.close()
        self._engine.dispose()

    # -- reader threads

    def _read(self, work: Callable[[Session], R]) -> R:
        try:
            connection = self._reader()
            with connection.begin() as transaction:
                connection.exec_driver_sql("BEGIN")
                try:
                    with Session(connection, autoflush=False, expire_on_commit=False) as session:
                        return work(session)
                finally:
                    transaction.rollback()
        except (DBAPIError, sqlite3.Error, OverflowError) as error:
            raise _told(error) from error

    def _reader(self) -> Connection:
        """This thread's own connection."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._engine.connect()
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.rollback()
            self._local.connection = connection
            self._reading.append(connection)
        return connection

    # -- the writer thread

    def _write_forever(self) -> None:
        connection: Connection | None = None
        bulk: deque[Work] = deque()
        watched = 0.0
        while True:
            arrived, closing = self._arrived(0.0 if bulk else WATCH_SECONDS if self._watchers else None)
            bulk.extend(work for work in arrived if work.bulk)
            urgent = [work for work in arrived if not work.bulk]
            for batch in (urgent, [bulk.popleft() for _ in range(len(bulk) if closing else min(1, len(bulk)))]):
                try:
                    connection = connection or self._engine.connect()
                    if batch:
                        self._commit(connection, batch)
                except Exception as error:  # it could not even be opened; this thread must live on
                    for work in batch:
                        work.fail(_told(error))
                hand_over(batch)
            if connection and self._watchers and (moment := time.monotonic()) >= watched + WATCH_SECONDS:
                self._look(connection)
                watched = moment
            if closing:
                if connection is not None:
                    connection.close()
                return

    def _arrived(self, timeout: float | None) -> tuple[list[Work], bool]:
        """What came (nothing after `timeout`), and whether the end was asked for."""
        batch: list[Work] = []
        try:
            work = self._queue.get(timeout=timeout)
            while work is not None:
                batch.append(work)
                if len(batch) == GROUP:
                    return batch, False
                work = self._queue.get_nowait()
        except Empty:
            return batch, False
        return batch, True

    def _commit(self, connection: Connection, batch: list[Work]) -> None:
        try:
            with connection.begin():
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                for work in batch:
                    self._run(connection, work)
        except DBAPIError as error:
            told = _told(error)
            for work in batch:
                work.fail(told)

    def _run(self, connection: Connection, work: Work) -> None:
        """One work in its savepoint. Raises only when SQLite gave the whole transaction up."""
        session = Session(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
        try:
            with connection.begin_nested(), session:
                work.result = work.run(session)
                session.flush()
                work.callbacks = callbacks(session)
                session.expunge_all()
        except BaseException as error:
            work.fail(_told(error))
            if not _driver(connection).in_transaction:  # a full disk does that
                raise _given_up(error) from error

    def _look(self, connection: Connection) -> None:
        """data_version changes when another connection commits, which here means another process.

        The first look wakes too: what was written between a watcher's own reading and now is not known.
        """
        try:
            ((version,),) = _driver(connection).execute("PRAGMA data_version").fetchall()
        except sqlite3.Error as error:
            log.warning("what other processes wrote could not be looked for, and is in a moment: %s", error)
            return
        if version != self._seen:
            self._seen = version
            for wake, loop in self._watchers.items():
                call_soon(loop, wake)


def _driver(connection: Connection) -> sqlite3.Connection:
    driver: sqlite3.Connection | None = connection.connection.driver_connection
    assert driver is not None
    return driver


def _given_up(error: BaseException) -> DBAPIError:
    """The database's own complaint behind `error`."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, DBAPIError) and "savepoint" not in str(at.orig):
            return at
        at = at.__context__
    return OperationalError("a transaction", None, sqlite3.OperationalError("the transaction was given up"))


def _told(error: BaseException) -> BaseException:
    """Operational failures become a sentence; mistakes in our own SQL stay what they are."""
    if isinstance(error, OverflowError) and "SQLite INTEGER" in str(error):
        return Invalid("A number is too large: at most 9223372036854775807 is taken.", code="number_too_large")
    if not isinstance(error, (DBAPIError, sqlite3.Error)):
        return error
    text = str(getattr(error, "orig", error))
    if "disk is full" in text or "disk I/O error" in text:
        return Unavailable("The disk is full. Free some space; nothing half-done was kept.", code="disk_full")
    if "locked" in text or "busy" in text:
        return Unavailable("The database is busy. Try again in a moment.", code="database_busy", retry_after=1)
    if "readonly" in text or "unable to open" in text or "malformed" in text or "not a database" in text:
        return Unavailable(f"The database cannot be used: {text}.", code="database_unusable")
    if "given up" in text:
        return Unavailable("The database gave the transaction up. Try again.", code="database_gave_up", retry_after=1)
    return error
