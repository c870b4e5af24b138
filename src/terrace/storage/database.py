"""The database port.

A transaction is a plain function of a `Session`. It cannot await, so it cannot be held across a
model, embedding or network call; one hop to the database's thread serves all its statements; on
SQLite many writers share one commit, and on PostgreSQL it can be run again when it lost a race.
See docs/decisions/0002-transactions-are-functions.md and 0012-transactions-on-postgresql.md.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlmodel import Session

from terrace.types import Scope

P = ParamSpec("P")
R = TypeVar("R")
W = TypeVar("W", bound=Callable[..., Any])

EVERY_TENANT = "*"

_AFTER_COMMIT = "terrace.after_commit"


class Database(Protocol):
    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""

    async def read(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` on one snapshot; it must not write."""

    async def write(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` in a transaction; return once it is durable. An exception rolls back this work alone.

        It is as if works ran one after the other, so `work` may read and then write what it read; where there are
        many writers it may be run more than once, and changes nothing but the database until it is durable.
        Raises Unavailable when the database cannot take it (away, full disk, locked for too long).
        """

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the event loop whenever another process has written; returns how to stop.

        Also once it is truly watched: so nothing escapes who reads first and watches then.
        """

    def end_within(self, seconds: float) -> None:
        """This process ends: after so long nobody waits here any more, but is told that the database is away.

        So that whatever holds the database up holds up no process that was asked to go.
        """

    async def close(self) -> None:
        """Finish what is queued and close every connection."""


def after_commit(session: Session, callback: Callable[[], None]) -> None:
    """Have `callback` called on the event loop once the surrounding write is durable, and only then."""
    session.info.setdefault(_AFTER_COMMIT, []).append(callback)


def callbacks(session: Session) -> list[Callable[[], None]]:
    """What `after_commit` collected; for implementations."""
    collected: list[Callable[[], None]] = session.info.pop(_AFTER_COMMIT, [])
    return collected


# -- what a work says of itself


def own_locks(work: W) -> W:
    """This work is right at READ COMMITTED: each statement alone decides, or rows and advisory locks are taken.

    It waits where others would be run again (save for a deadlock), and costs PostgreSQL less. On SQLite it changes
    nothing.
    """
    work.__terrace_own_locks__ = True  # type: ignore[attr-defined]
    return work


def in_bulk(work: W) -> W:
    """Nobody waits for this work, and there are many like it: where one writer serves all, the others go first."""
    work.__terrace_in_bulk__ = True  # type: ignore[attr-defined]
    return work


def every_tenant(work: W) -> W:
    """This work may see rows of every tenant, though it is given a Scope."""
    work.__terrace_every_tenant__ = True  # type: ignore[attr-defined]
    return work


def as_owner(work: W) -> W:
    """This work changes the schema (an index on demand): it runs as the role we connected as, on every tenant."""
    work.__terrace_as_owner__ = True  # type: ignore[attr-defined]
    return every_tenant(work)


def with_settings(settings: str) -> Callable[[W], W]:
    """PostgreSQL's settings (`SET LOCAL ...; SET LOCAL ...`) for this work's transaction, in the message that begins
    it. On SQLite they change nothing."""

    def decorate(work: W) -> W:
        work.__terrace_settings__ = settings  # type: ignore[attr-defined]
        return work

    return decorate


def says(work: Callable[..., Any], what: str) -> Any:
    """What `work`, or what it is a partial of, is decorated with as `what`: False, where it is not."""
    while not hasattr(work, f"__terrace_{what}__"):
        if not isinstance(work, partial):
            return False
        work = work.func
    return getattr(work, f"__terrace_{what}__")


def driver_of(session: Session) -> Any:
    """The driver's own connection, past SQLAlchemy, whose compiler and results cost more than many a statement."""
    connection: Any = session.get_bind()
    return connection.connection.driver_connection


def tenant_of(work: Callable[..., Any], args: Iterable[object], kwargs: dict[str, Any]) -> str:
    """Whose rows `work` may see: the tenant of the first Scope it was given, however; else everybody's.

    A Scope is looked for among the arguments, then in what a lambda closed over. A Caller is none: whoever signs in
    may belong to several tenants, and an operator looks after all of them.
    """
    if says(work, "every_tenant"):
        return EVERY_TENANT
    for given in (*args, *kwargs.values()):
        if isinstance(given, Scope):
            return _checked(given)
    if isinstance(work, partial):
        return tenant_of(work.func, work.args, work.keywords)
    for cell in getattr(work, "__closure__", None) or ():
        if isinstance(scope := _content(cell), Scope):
            return _checked(scope)
    return EVERY_TENANT


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return None


def _checked(scope: Scope) -> str:
    assert scope.tenant != EVERY_TENANT, "no tenant is called *"
    return scope.tenant
