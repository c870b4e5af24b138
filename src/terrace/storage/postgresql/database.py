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
from dataclasses import dataclass
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlmodel import Session

from terrace.errors import Unavailable
from terrace.storage.database import EVERY_TENANT, callbacks, says, tenant_of
from terrace.storage.postgresql import errors
from terrace.storage.postgresql.clock import Clock
from terrace.storage.postgresql.doubting import Doubt
from terrace.storage.postgresql.engine import engine_for
from terrace.storage.postgresql.lines import Line, Lines
from terrace.storage.postgresql.security import APP_ROLE, MAY_WALK_THROUGH
from terrace.storage.postgresql.watching import Watch
from terrace.storage.works import Work, hand_over

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 30.0  # seconds a work may wait for its turn, and is run again for when it loses races
PAUSE, LONGEST_PAUSE = 0.002, 0.1
CHANGED = 2  # how often a work is run again that stumbled on what may have come or gone since it looked
AWAY_SECONDS = 0.2  # for as long nobody knocks again where nobody answered
# Who was stopped amid a transaction loses their locks before those who wait for them give up.
LIMITS = "SET LOCAL lock_timeout = '25s'; SET LOCAL idle_in_transaction_session_timeout = '20s'"
# Would the wall between tenants not hold the role we connected as? And is there the role that it holds?
WHO = f"SELECT ({MAY_WALK_THROUGH}), EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}')"

INERROR = 3  # libpq: a statement of the transaction failed

Isolation = Literal["SERIALIZABLE", "READ COMMITTED", "REPEATABLE READ READ ONLY"]


class PostgreSQLDatabase:
    dialect = "postgresql"

    def __init__(self, url: str, *, connections: int = 8, listen_url: str = "", row_security: bool = True) -> None:
        self._engine = engine_for(url)
        self._row_security = row_security
        self._local = threading.local()
        self._open: set[Connection] = set()
        self._lines = Lines()
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="db")
        self._refused = 0.0  # when the last attempt to connect failed; 0 when it did not
        self._knocking = threading.Lock()  # held by the one who tries whether it is back
        self._distrusted = 0.0  # connections older than this are not used again
        self._doubt = Doubt(self._engine, self._distrust)
        self._clock = Clock()
        self._watch = Watch(listen_url or url, self._doubt)
        self._role: str | None = None  # what to begin with where the wall would not hold us; None: not known yet
        self._closed = False
        self._ending: asyncio.TimerHandle | None = None
        self._ended = False  # nobody waits here any more

    async def read(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._submit("REPEATABLE READ READ ONLY", work, args, kwargs)

    async def write(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._submit("READ COMMITTED" if says(work, "own_locks") else "SERIALIZABLE", work, args, kwargs)

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._watch.add(wake, asyncio.get_running_loop())

    def end_within(self, seconds: float) -> None:
        self._ending = self._ending or asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        self._ended = True
        self._watch.leave()
        self._doubt.cut_all()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._watch.close)
        await asyncio.to_thread(self._doubt.close)
        for connection in list(self._open):
            self._drop(connection)
        self._engine.dispose()
        if self._ending is not None:
            self._ending.cancel()

    async def _submit(
        self, isolation: Isolation, run: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> R:
        if self._closed:
            raise Unavailable("The database is closed: the server is shutting down.")
        tenant = tenant_of(run, args, kwargs) if self._row_security else EVERY_TENANT
        walled = self._row_security and not says(run, "as_owner")
        beginning = _Beginning(isolation, tenant, walled, says(run, "settings") or "")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        work = Work(lambda session: run(session, *args, **kwargs), future, loop)
        self._threads.submit(self._work, work, beginning, self._lines.of(run), time.monotonic() + PATIENCE)
        return await future

    # -- in a thread

    def _work(self, work: Work, beginning: "_Beginning", line: Line, until: float) -> None:
        try:
            if time.monotonic() > until:
                raise errors.busy()
            self._patiently(lambda: self._transaction(work, beginning), line, until)
            if beginning.writes:
                self._watch.tell()
        except BaseException as error:
            told = errors.told(error)
            if told is not error:
                told.__cause__ = error
            work.fail(told)
        hand_over([work])

    def _patiently(self, attempt: Callable[[], None], line: Line, until: float) -> None:
        """Again after a lost race, and once more on a new connection when the old one had died meanwhile."""
        pause, stale, changed = PAUSE, 1, CHANGED
        while True:
            try:
                with line.turn(until):
                    return attempt()
            except _Stale as error:
                if not stale:
                    raise errors.unreachable() from error
                stale -= 1
            except Exception as error:
                if errors.may_have_changed(error) and changed:
                    changed -= 1
                elif errors.lost_race(error) and time.monotonic() < until:
                    line.lost()
                else:
                    raise
                time.sleep(random.uniform(0, pause))
                pause = min(pause * 2, LONGEST_PAUSE)

    def _transaction(self, work: Work, beginning: "_Beginning") -> None:
        connection = self._mine()
        driver: Any = connection.connection.driver_connection
        away = False
        try:
            with self._doubt.waiting(driver):
                self._run(work, beginning, connection, driver)
        except BaseException as error:
            away = isinstance(error, _Stale) or errors.is_away(error)
            raise
        finally:
            if away or driver.closed:  # maybe at the end of what was read, of which nobody heard
                self._drop(connection)

    def _run(self, work: Work, beginning: "_Beginning", connection: Connection, driver: Any) -> None:
        session = Session(connection, autoflush=beginning.writes, expire_on_commit=False)
        committing = False
        try:
            self._clock.begin(driver, beginning.statement(self._become(driver) if beginning.walled else ""))
            work.result = work.run(session)
            if beginning.writes:
                session.flush()
                work.callbacks = callbacks(session)
            if session.in_transaction():  # else nothing was loaded: only the driver was asked
                session.expunge_all()
            if driver.pgconn.transaction_status == INERROR:
                raise RuntimeError("a statement failed, and the work went on: only a savepoint allows that")
            if beginning.writes:
                committing = True
                _commit(session, driver)
            else:  # nobody need wait for its end
                hand_over([work])
                with errors.unless_away():
                    _commit(session, driver)
        except BaseException as error:
            with errors.unless_away():  # where the connection is gone there is nothing to roll back
                session.rollback()  # what was added is new again, should it be added again
                driver.rollback()
            session.close()
            if not committing and (driver.closed or errors.is_away(error)):
                raise _Stale from error
            raise
        finally:
            if session.in_transaction():
                session.close()

    def _mine(self) -> Connection:
        """This thread's own connection. While the database is away one thread knocks, the others are told."""
        if self._ended:
            raise errors.unreachable()
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None and not connection.closed:
            if self._local.since > self._distrusted:
                return connection
            self._drop(connection)
        refused = self._refused
        if refused and (time.monotonic() < refused + AWAY_SECONDS or not self._knocking.acquire(blocking=False)):
            raise errors.unreachable()
        try:
            connection = self._engine.connect()
            self._refused = 0.0
        except Exception as error:
            if errors.is_away(error):
                self._refused = time.monotonic()
            raise
        finally:
            if refused:
                self._knocking.release()
        self._local.connection, self._local.since = connection, time.monotonic()
        self._open.add(connection)
        return connection

    def _distrust(self, away: bool) -> None:
        """A connection fell silent: whoever has another of those days would only wait by it too."""
        self._distrusted = time.monotonic()
        if away:
            self._refused = self._distrusted

    def _become(self, driver: Any) -> str:
        """Whom to become before anything is done. The migration that makes the role may yet have to run."""
        if self._role is None:
            strong, made = driver.execute(WHO).fetchone()
            if strong and not made:
                return ""
            self._role = f"SET LOCAL ROLE {APP_ROLE}; " if strong else ""
        return self._role

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        if getattr(self._local, "connection", None) is connection:
            self._local.connection = None
        connection.invalidate()
        connection.close()


def _commit(session: Session, driver: Any) -> None:
    """SQLAlchemy knows of no transaction where only the driver was asked: telling it took a quarter of a small one."""
    if session.in_transaction():
        session.commit()
    driver.commit()


class _Stale(Exception):
    """The connection died, and nothing was committed on it."""


@dataclass(frozen=True, slots=True)
class _Beginning:
    """How a transaction begins: all in one statement, so in one journey."""

    isolation: Isolation
    tenant: str
    walled: bool
    settings: str

    @property
    def writes(self) -> bool:
        return not self.isolation.endswith("READ ONLY")

    def statement(self, role: str) -> str:
        tenant = self.tenant.replace("'", "''")
        begin = f"BEGIN ISOLATION LEVEL {self.isolation}; {LIMITS}; {role}SET LOCAL terrace.tenant = '{tenant}'"
        return f"{begin}; {self.settings}" if self.settings else begin
