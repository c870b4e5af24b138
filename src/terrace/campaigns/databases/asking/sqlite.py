"""SQLite: a file opened read-only, and an authorizer that lets a query do nothing but read."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from terrace.campaigns.databases.asking import base
from terrace.campaigns.databases.asking.base import Answer
from terrace.campaigns.databases.base import Target
from terrace.campaigns.databases.statement import DENIED
from terrace.errors import Invalid, TerraceError

HEADER = b"SQLite format 3\x00"
STEPS = 10_000  # of its machine between two looks at the clock
MAX_VALUE = 10_000_000  # bytes of one
READING = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE))


@contextmanager
def ask(target: Target, query: str) -> Iterator[Answer]:
    path = Path(target.database)
    _check(path)
    until = time.monotonic() + target.seconds
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=base.LOCK_SECONDS)) as db:
            db.execute("PRAGMA query_only = ON")
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
            db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            db.text_factory = _text
            db.set_authorizer(_authorize)
            db.set_progress_handler(lambda: time.monotonic() > until, STEPS)
            cursor = db.execute(query)
            yield [column[0] for column in cursor.description or ()], _rows(cursor)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _told(target, error) from None


def _rows(cursor: sqlite3.Cursor) -> Iterator[tuple[object, ...]]:
    while rows := cursor.fetchmany(base.BATCH):
        yield from rows


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _authorize(action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
    if action in READING:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION:
        denied = any(pattern.fullmatch((second or "").lower()) for pattern in DENIED["sqlite"])
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(HEADER))
    except OSError as error:
        raise Invalid(f"The file {path.name} cannot be read: {error.strerror}.", code="unreadable") from error
    if head != HEADER:
        raise Invalid(f"The file {path.name} is no SQLite database.", code="no_database")


def _told(target: Target, error: Exception) -> TerraceError:
    text = str(error)
    if "interrupted" in text:
        return base.too_slow(target)
    if "locked" in text or "busy" in text:
        return base.unreachable(target, "another program is writing to it")
    return base.refused(target, text)
