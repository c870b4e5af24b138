"""What the drivers share: a query's rows as a table, and how a driver's complaint is told."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from terrace.campaigns.contacts.reading.base import Row
from terrace.campaigns.contacts.reading.mapping import headings
from terrace.campaigns.contacts.values import written
from terrace.campaigns.databases.base import Target
from terrace.errors import Invalid, Unavailable

BATCH = 500  # rows fetched at a time
CONNECT_SECONDS = 10
LOCK_SECONDS = 5
MAX_TOLD = 300  # characters of what a database says
SECRETS = 2  # characters a credential must have to be worth hiding

Answer = tuple[Sequence[str], Iterable[Sequence[Any]]]
"""The columns' names, and the rows as they come."""


class Ask(Protocol):
    """A driver: the query in a transaction that cannot write. Raises Invalid or Unavailable, without credentials."""

    def __call__(self, target: Target, query: str) -> AbstractContextManager[Answer]: ...


class Asked:
    """A query's rows, as a table is read."""

    def __init__(self, answer: Answer) -> None:
        names, self._rows = answer
        self.notes: list[str] = []
        self.header = headings(names)

    def __iter__(self) -> Iterator[Row]:
        for line, values in enumerate(self._rows, 1):
            yield Row(line, [written(value) for value in values])


def quiet(target: Target, text: str) -> str:
    """One line of what a database said, with nothing of our credentials in it."""
    line = " ".join(text.split())
    for secret in (target.password, target.user):
        if len(secret) >= SECRETS:
            line = line.replace(secret, "…")
    return line if len(line) <= MAX_TOLD else line[: MAX_TOLD - 1] + "…"


def refused(target: Target, text: str) -> Invalid:
    return Invalid(f"The database refused the query: {quiet(target, text)}", code="query_refused")


def too_slow(target: Target) -> Invalid:
    return Invalid(
        f"The query took longer than {target.seconds:g} seconds and was stopped. Ask for less, or raise "
        "campaigns.query_timeout.",
        code="query_timeout",
    )


def bad_login(target: Target) -> Invalid:
    return Invalid(f"{_called(target)} refused the user or the password.", code="bad_login")


def no_database(target: Target) -> Invalid:
    return Invalid(f"{_called(target)} has no database {target.database!r}, or not for this user.", code="no_database")


def no_tls(target: Target) -> Invalid:
    return Invalid(
        f"{_called(target)} speaks no TLS. Set it up there, or choose tls off if the way to it is yours alone.",
        code="no_tls",
    )


def bad_certificate(target: Target) -> Invalid:
    return Invalid(
        f"The certificate of {_called(target)} does not hold for this name, or is signed by nobody we trust. "
        "Give its certificate authority as `ca`, or choose tls require.",
        code="bad_certificate",
    )


def unreachable(target: Target, why: str = "") -> Unavailable:
    return Unavailable(
        f"{_called(target)} cannot be reached{': ' if why else ''}{quiet(target, why)}.", code="unreachable"
    )


def no_driver(extra: str) -> Unavailable:
    return Unavailable(
        "The driver for this database is not installed. Whoever runs Terrace can add it to its environment: "
        f"pip install 'terrace[{extra}]'.",
        code="extra_missing",
    )


def _called(target: Target) -> str:
    return f"{target.host}:{target.port}" if target.host else "The database"
