"""SQLite in WAL mode: one writer thread with group commit, a few reader threads.

Each writer's work runs in its own savepoint, and all that is waiting shares one commit: a commit
with FULL sync costs about 200 us, a savepoint about 20.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from terrace.errors import Unavailable
from terrace.storage.database import callbacks

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)

GROUP = 512  # most works in one commit
BUSY_MS = 15_000  # how long to wait for another process's writer
WATCH_SECONDS = 0.05


def engine_for(path: Path, *, durability: str = "full") -> Engine:
    """An engine whose transactions we begin ourselves (the driver's own legacy mode commits behind our back)."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000},
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
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


@dataclass(slots=True)
class _Work:
    run: Callable[[Session], Any]
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None
    callbacks: "list[Callable[[], None]]" = ()  # type: ignore[assignment]

    def resolve(self) -> None:
        for callback in self.callbacks:
            try:
                callback()
            except Exception:
                log.exception("a callback after a commit failed")
        if self.future.done():  # the caller was cancelled; the write stands
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class SQLiteDatabase:
    dialect = "sqlite"

    def __init__(self, path: Path, *, readers: int = 4, durability: str = "full") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._engine = engine_for(path, durability=durability)
        self._local = threading.local()
        self._open: list[Connection] = []
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="db-read", initializer=self._open_reader)
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_forever, name="db-write", daemon=True)
        self._writer.start()
        self._watchers: set[Callable[[], None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    async def read(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._closed:
            raise Unavailable("The database is closed: the server is shutting down.")
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._read, lambda session: work(session, *args, **kwargs)
        )

    async def write(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._closed:
            raise Unavailable("The database is closed: the server is shutting down.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._queue.put(_Work(lambda session: work(session, *args, **kwargs), future, loop))
        return await future

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        self._watchers.add(wake)
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        return lambda: self._watchers.discard(wake)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._open:
            connection.close()
        self._engine.dispose()

    # -- reader threads

    def _open_reader(self) -> None:
        connection = self._engine.connect()
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.rollback()
        self._local.connection = connection
        self._open.append(connection)

    def _read(self, work: Callable[[Session], R]) -> R:
        connection: Connection = self._local.connection
        with connection.begin() as transaction:
            connection.exec_driver_sql("BEGIN")
            try:
                with Session(connection, autoflush=False, expire_on_commit=False) as session:
                    return work(session)
            except DBAPIError as error:
                raise _told(error) from error
            finally:
                transaction.rollback()

    # -- the writer thread

    def _write_forever(self) -> None:
        connection = self._engine.connect()
        try:
            while (first := self._queue.get()) is not None:
                batch, last = [first], False
                while len(batch) < GROUP:
                    try:
                        work = self._queue.get_nowait()
                    except Empty:
                        break
                    if work is None:
                        last = True
                        break
                    batch.append(work)
                self._commit(connection, batch)
                for loop in {work.loop for work in batch}:
                    mine = [work for work in batch if work.loop is loop]
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(_resolve, mine)
                if last:
                    return
        finally:
            connection.close()

    def _commit(self, connection: Connection, batch: list[_Work]) -> None:
        try:
            with connection.begin():
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                for work in batch:
                    self._run(connection, work)
        except BaseException as error:
            told = _told(error) if isinstance(error, DBAPIError) else error
            for work in batch:
                work.error = work.error or told
                work.callbacks = []

    def _run(self, connection: Connection, work: _Work) -> None:
        session = Session(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
        try:
            with connection.begin_nested(), session:
                work.result = work.run(session)
                session.flush()
                work.callbacks = callbacks(session)
                session.expunge_all()
        except BaseException as error:
            if isinstance(error, DBAPIError) and not connection.get_transaction():
                raise  # SQLite gave the whole transaction up (a full disk does that)
            work.error = _told(error) if isinstance(error, DBAPIError) else error

    # -- other processes

    async def _watch(self) -> None:
        """SQLite's data_version changes when another connection commits; reading it costs a few microseconds.

        Our own writer is another connection too, so a change of our own wakes us once in vain.
        """
        connection = sqlite3.connect(self.path, check_same_thread=False)
        try:
            seen = connection.execute("PRAGMA data_version").fetchone()
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                current = connection.execute("PRAGMA data_version").fetchone()
                if current != seen:
                    seen = current
                    for wake in tuple(self._watchers):
                        wake()
        finally:
            connection.close()


def _resolve(batch: list[_Work]) -> None:
    for work in batch:
        work.resolve()


def _told(error: DBAPIError) -> BaseException:
    """Operational failures become a sentence; mistakes in our own SQL stay what they are."""
    text = str(error.orig)
    if "disk is full" in text or "disk I/O error" in text:
        return Unavailable("The disk is full. Free some space; nothing half-done was kept.", code="disk_full")
    if "locked" in text or "busy" in text:
        return Unavailable("The database is busy. Try again in a moment.", code="database_busy", retry_after=1)
    if "readonly" in text or "unable to open" in text:
        return Unavailable(f"The database cannot be written: {text}.", code="database_unwritable")
    return error
