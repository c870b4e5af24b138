"""Points in a file of JSON lines: a point a line, or an answer of Qdrant's scroll a line. Plain or gzipped."""

import gzip
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from terrace.errors import Invalid, Missing
from terrace.moving.mongo_qdrant.base import Point, PointCollection, Space
from terrace.moving.mongo_qdrant.fields import key
from terrace.moving.mongo_qdrant.sources.mongo_dump import batched
from terrace.moving.mongo_qdrant.sources.qdrant_server import dense

MAX_LINE = 64 * 1024**2  # bytes


class QdrantLines:
    """The collection is called as the file is, without what follows the first dot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = path.name.partition(".")[0]

    async def collections(self) -> Sequence[PointCollection]:
        first = next(self._points(), None)
        vectors = first.vectors if first else {}
        return [PointCollection(self._name, None, tuple(Space(n, len(v), "Cosine") for n, v in vectors.items()))]

    async def read(self, collection: str, limit: int | None = None) -> AsyncIterator[Sequence[Point]]:
        if collection != self._name:
            raise Missing(f"{self._path} holds the collection {self._name}, not {collection}.", code="source_missing")
        async for batch in batched(self._points(), limit):
            yield batch

    async def close(self) -> None:
        pass

    def _points(self) -> Iterator[Point]:
        opener = gzip.open if self._path.suffix == ".gz" else open
        with opener(self._path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                if line.strip():
                    yield from self._of(line, number)

    def _of(self, line: bytes, number: int) -> Iterator[Point]:
        try:
            told: Any = json.loads(line)
            result = told.get("result", told)
            for each in result.get("points", [told]):
                yield Point(key(each["id"]), dense(each.get("vector")), each.get("payload") or {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Invalid(
                f"{self._path}, line {number}: this is no point of Qdrant ({{id, vector, payload}}) nor an answer of "
                "its scroll.",
                code="lines_damaged",
            ) from error
