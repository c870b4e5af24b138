"""Where something is moved from and to: a database or a blob store, by its address."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy.exc import DBAPIError

from terrace.errors import Invalid, Missing, Unavailable
from terrace.knowledge.health.base import InspectedIndex
from terrace.moving.sides import Side
from terrace.settings import Settings
from terrace.storage import Database

SQLITE = "sqlite:///"
POSTGRESQL = ("postgresql:", "postgres:", "postgresql+psycopg:")
BUCKET = "s3://"
MAGIC = b"SQLite format 3\x00"

_PASSWORD = re.compile(r"(//[^/@:?]*):[^?]*@")  # a slash in it is taken, too
_SECRET_OPTION = re.compile(r"((?:password|passfile|sslpassword)=)[^&]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    address: str
    kind: Literal["sqlite", "postgresql", "blobs"]
    name: str = ""  # for people, where the address is another each time

    @property
    def path(self) -> Path:
        """Of a SQLite file."""
        return Path(self.address.removeprefix(SQLITE)).expanduser()

    def __str__(self) -> str:
        """Without its password."""
        return self.name or _SECRET_OPTION.sub(r"\1...", _PASSWORD.sub(r"\1:...@", self.address))

    def __repr__(self) -> str:
        return f"Place({self})"


def place(address: str) -> Place:
    """Raises Invalid for what is neither a database nor a place for files."""
    if address.startswith(SQLITE):
        return Place(f"{SQLITE}{Path(address.removeprefix(SQLITE)).expanduser().resolve()}", "sqlite")
    if address.startswith(POSTGRESQL):
        return Place(address, "postgresql")
    if address.startswith(BUCKET):
        return Place(address.rstrip("/"), "blobs")
    if "://" in address or not address:
        raise Invalid(
            "Name a database (sqlite:///file or postgresql://...) or a place for files (a folder or s3://bucket/prefix).",
            code="bad_place",
        )
    path = Path(address).expanduser().resolve()
    if path.is_file():
        raise Invalid(f"{path} is a file. If it is a database, write {SQLITE}{path}", code="bad_place")
    return Place(str(path), "blobs")


def overlap(one: Place, other: Place) -> bool:
    """Whether what is put into one place for files is in the other, too."""
    first, second = (each.address.split("/") for each in (one, other))
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def database_of(settings: Settings) -> Place:
    return place(settings.database_url)


def open_side(where: Place, *, make: bool = False) -> Side:
    """`make`: a SQLite file that is not there yet. Blocks. Raises Missing, or Unavailable when it cannot be reached."""
    if where.kind == "postgresql":
        from terrace.moving.sides.postgresql import PostgreSQLSide
        from terrace.storage.postgresql import errors

        try:
            return PostgreSQLSide(where.address)
        except DBAPIError as error:
            why = f"{where} cannot be reached: {errors.reason(error)}"
            raise Unavailable(why.rstrip(".") + ".", code="database_unreachable") from error
    from terrace.moving.sides.sqlite import SQLiteSide

    if not make and not where.path.is_file():
        raise Missing(f"There is no database {where.path}.", code="no_database")
    if where.path.is_file() and not _is_sqlite(where.path):
        raise Invalid(f"{where.path} is no SQLite database.", code="bad_place")
    where.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return SQLiteSide(where.path, durability="normal" if make else "full")


def _is_sqlite(path: Path) -> bool:
    """By the 16 bytes its format begins with; an empty file is an empty database."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) in (b"", MAGIC)


@asynccontextmanager
async def open_index(where: Place) -> AsyncIterator[tuple[Database, InspectedIndex]]:
    """The database as the server has it, and its index; nothing is migrated."""
    from terrace.knowledge.index.postgres import PostgresIndex

    database: Database
    index: InspectedIndex
    if where.kind == "postgresql":
        from terrace.storage.postgresql import PostgreSQLDatabase

        database = PostgreSQLDatabase(where.address, connections=2)
        index = PostgresIndex(database)
    else:
        from terrace.knowledge.index import SQLiteIndex
        from terrace.storage import SQLiteDatabase

        database = SQLiteDatabase(where.path, readers=1)
        index = SQLiteIndex(database)
    try:
        yield database, index
    finally:
        if isinstance(index, PostgresIndex):
            await index.close()
        await database.close()
