"""PostgreSQL: a few threads, each with a connection of its own; a work has one only while it runs.

Works are SERIALIZABLE and run again when they lost a race, so that a work may read and then write as it may
where there is one writer. The statement that begins a transaction also says whose rows it may see, which holds
until its end only: a pooler in transaction mode may stand in between.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlmodel import Session

from terrace.errors import Unavailable
from terrace.storage.database import EVERY_TENANT, callbacks, says, tenant_of
from terrace.storage.postgresql import errors
from terrace.storage.postgresql.engine import engine_for
from terrace.storage.postgresql.watching import Watch
from terrace.storage.works import Work, hand_over

P = ParamSpec("P")
R = TypeVar("R")

APP_ROLE = "terrace_app"
PATIENCE = 10.0  # seconds a work that loses races is run again for
PAUSE, LONGEST_PAUSE = 0.002, 0.1
AWAY_SECONDS = 0.2  # for as long nobody knocks again where nobody answered
LIMITS = "SET LOCAL lock_timeout = '15s'; SET LOCAL idle_in_transaction_session_timeout = '60s'"
# Does the role we connected as walk through walls (superusers do)? And is there the role that does not?
WHO = f"""SELECT rolsuper OR rolbypassrls, EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}')
FROM pg_roles WHERE rolname = current_user"""

Isolation = Literal["SERIALIZABLE", "READ COMMITTED", "REPEATABLE READ READ ONLY"]


class PostgreSQLDatabase:
    dialect = "postgresql"

    def __init__(self, url: str, *, connections: int = 8, listen_url: str = "", row_security: bool = True) -> None:
        self._engine = engine_for(url)
        self._row_security = row_security
        self._local = threading.local()
        self._open: set[Connection] = set()
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="db")
        self._watch = Watch(listen_url or url)
        self._refused = 0.0  # when the last attempt to connect failed
        self._role = ""  # SET LOCAL ROLE, where the wall would not hold us
        self._closed = False

    async def read(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        beginning = self._beginning("REPEATABLE READ READ ONLY", work, args, kwargs)
        return await self._submit(lambda session: work(session, *args, **kwargs), self._read, beginning)

    async def write(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        isolation: Isolation = "READ COMMITTED" if says(work, "own_locks") else "SERIALIZABLE"
        beginning = self._beginning(isolation, work, args, kwargs)
        return await self._submit(lambda session: work(session, *args, **kwargs), self._write, beginning)

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._watch.add(wake, asyncio.get_running_loop())

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._watch.close)
        for connection in list(self._open):
            self._drop(connection)
        self._engine.dispose()

    async def _submit(
        self, run: Callable[[Session], R], way: Callable[[Work, "_Beginning"], None], beginning: "_Beginning"
    ) -> R:
        if self._closed:
            raise Unavailable("The database is closed: the server is shutting down.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._threads.submit(self._work, Work(run, future, loop), way, beginning)
        return await future

    def _beginning(
        self, isolation: Isolation, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> "_Beginning":
        tenant = tenant_of(work, args, kwargs) if self._row_security else EVERY_TENANT
        return _Beginning(isolation, tenant, walled=self._row_security and not says(work, "as_owner"))

    # -- in a thread

    def _work(self, work: Work, way: Callable[[Work, "_Beginning"], None], beginning: "_Beginning") -> None:
        try:
            way(work, beginning)
        except BaseException as error:
            work.fail(errors.told(error))
        hand_over([work])

    def _read(self, work: Work, beginning: "_Beginning") -> None:
        self._patiently(lambda: self._transaction(work, beginning))
        work.callbacks = []

    def _write(self, work: Work, beginning: "_Beginning") -> None:
        self._patiently(lambda: self._transaction(work, beginning))
        self._watch.tell()

    def _patiently(self, attempt: Callable[[], None]) -> None:
        """Again after a lost race, and once more on a new connection when the old one had died meanwhile."""
        began, pause, dead = time.monotonic(), PAUSE, 0
        while True:
            try:
                return attempt()
            except Exception as error:
                if errors.lost_race(error) and time.monotonic() - began < PATIENCE:
                    time.sleep(random.uniform(0, pause))
                    pause = min(pause * 2, LONGEST_PAUSE)
                elif isinstance(error, _Stale) and dead < 1:
                    dead += 1
                elif isinstance(error, _Stale):
                    raise errors.unreachable() from error
                else:
                    raise

    def _transaction(self, work: Work, beginning: "_Beginning") -> None:
        connection = self._mine()
        driver: Any = connection.connection.driver_connection
        committing = False
        try:
            with connection.begin() as transaction:
                driver.execute(beginning.statement(self._role))
                session = Session(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
                try:
                    work.result = work.run(session)
                    session.flush()
                    work.callbacks = callbacks(session)
                    session.expunge_all()
                except BaseException:
                    session.rollback()  # what was added is new again, if it is added again
                    raise
                finally:
                    session.close()
                if driver.info.transaction_status == _FAILED:
                    raise RuntimeError("a statement failed, and the work went on: only a savepoint allows that")
                committing = True
                transaction.commit()
        except BaseException as error:
            if errors.is_away(error) or driver.closed:
                self._drop(connection)
                if not committing:
                    raise _Stale from error
            raise

    def _mine(self) -> Connection:
        """This thread's own connection."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None and not connection.closed:
            return connection
        if time.monotonic() < self._refused + AWAY_SECONDS:
            raise errors.unreachable()
        try:
            connection = self._engine.connect()
            self._know(connection)
        except Exception as error:
            if errors.is_away(error):
                self._refused = time.monotonic()
            raise
        self._local.connection = connection
        self._open.add(connection)
        return connection

    def _know(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        row = driver.execute(WHO).fetchone()
        self._role = f"SET LOCAL ROLE {APP_ROLE}; " if row is not None and all(row) else ""

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        if getattr(self._local, "connection", None) is connection:
            self._local.connection = None
        connection.invalidate()
        connection.close()


_FAILED = 3  # libpq's PQTRANS_INERROR


class _Stale(Exception):
    """The connection had died before anything could be committed on it."""


class _Beginning:
    """How a transaction begins: all in one statement, so in one journey."""

    __slots__ = ("_isolation", "_tenant", "_walled")

    def __init__(self, isolation: Isolation, tenant: str, *, walled: bool) -> None:
        self._isolation = isolation
        self._tenant = tenant
        self._walled = walled

    def statement(self, role: str) -> str:
        tenant = self._tenant.replace("'", "''")
        return (
            f"BEGIN ISOLATION LEVEL {self._isolation}; {LIMITS}; {role if self._walled else ''}"
            f"SET LOCAL terrace.tenant = '{tenant}'"
        )
