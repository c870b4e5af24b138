"""The folder of qdrant-client's local mode, read without changing it and without the package.

It keeps a SQLite file a collection, a pickled point in each row. A pickle can run anything, so only what a point is
made of is let in: plain values, and the package's own models as bare attributes.
"""

import io
import json
import pickle
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from terrace.errors import Invalid, Missing, Unavailable
from terrace.moving.mongo_qdrant.base import Point, PointCollection
from terrace.moving.mongo_qdrant.fields import key
from terrace.moving.mongo_qdrant.sources.mongo_dump import batched
from terrace.moving.mongo_qdrant.sources.qdrant_server import dense, spaces_of

META = "meta.json"
PLAIN = {("datetime", "datetime"): datetime, ("datetime", "date"): date, ("uuid", "UUID"): UUID}


class _Model:
    """What stands for any model of the package: its attributes and nothing it could do."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state.get("__dict__", state))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("qdrant_client.") and name.isidentifier():
            return _Model
        if (known := PLAIN.get((module, name))) is not None:
            return known
        raise Invalid(
            f"A point of the local store would load {module}.{name}, which no point needs: it was tampered with.",
            code="store_suspicious",
        )


class QdrantFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            told = json.loads((folder / META).read_text(encoding="utf-8"))["collections"]
            self._spaces = {name: spaces_of(config.get("vectors")) for name, config in told.items()}
        except OSError as error:
            raise Unavailable(f"{folder / META} cannot be read: {error.strerror}.", code="unreadable") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Invalid(f"{folder / META} is not one of qdrant-client's local mode.", code="store_damaged") from error

    async def collections(self) -> Sequence[PointCollection]:
        return [PointCollection(name, self._count(name), spaces) for name, spaces in sorted(self._spaces.items())]

    async def read(self, collection: str, limit: int | None = None) -> AsyncIterator[Sequence[Point]]:
        if collection not in self._spaces:
            known = ", ".join(sorted(self._spaces)) or "none"
            raise Missing(f"The local store has no collection {collection}; it has {known}.", code="source_missing")
        async for batch in batched(self._points(collection), limit):
            yield batch

    async def close(self) -> None:
        pass

    def _count(self, name: str) -> int:
        with closing(self._open(name)) as connection:
            return int(connection.execute("SELECT count(*) FROM points").fetchone()[0])

    def _points(self, name: str) -> Iterator[Point]:
        with closing(self._open(name)) as connection:
            for (data,) in connection.execute("SELECT point FROM points ORDER BY rowid"):
                yield _point(data, name)

    def _open(self, name: str) -> sqlite3.Connection:
        path = self._folder / "collection" / name / "storage.sqlite"
        try:
            # From a thread that differs from one batch to the next, never from two at once.
            return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise Unavailable(f"{path} cannot be opened: {error}.", code="unreadable") from error


def _point(data: bytes, collection: str) -> Point:
    try:
        told = vars(_Unpickler(io.BytesIO(data)).load())
        return Point(key(told["id"]), dense(told["vector"]), told.get("payload") or {})
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Invalid(
            f"The local store of {collection} is damaged: a point cannot be read.", code="store_damaged"
        ) from error
