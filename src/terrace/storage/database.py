"""The database port.

A transaction is a plain function of a `Session`. It cannot await, so it cannot be held across a
model, embedding or network call; one hop to the database's thread (or one greenlet, on PostgreSQL)
serves all its statements; and on SQLite many writers share one commit.
See docs/decisions/0002-transactions-are-functions.md.
"""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlmodel import Session

P = ParamSpec("P")
R = TypeVar("R")

_AFTER_COMMIT = "terrace.after_commit"


class Database(Protocol):
    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""

    async def read(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` on one snapshot; it must not write."""

    async def write(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` in a transaction; return once it is durable. An exception rolls back this work alone.

        Raises Unavailable when the database cannot take it (full disk, locked for too long).
        """

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the event loop whenever another process has written; returns how to stop."""

    async def close(self) -> None:
        """Finish what is queued and close every connection."""


def after_commit(session: Session, callback: Callable[[], None]) -> None:
    """Have `callback` called on the event loop once the surrounding write is durable, and only then."""
    session.info.setdefault(_AFTER_COMMIT, []).append(callback)


def callbacks(session: Session) -> list[Callable[[], None]]:
    """What `after_commit` collected; for implementations."""
    collected: list[Callable[[], None]] = session.info.pop(_AFTER_COMMIT, [])
    return collected
