"""The index on SQLite: FTS5 for words, sign bits and exact cosines for meaning, one ranking out of both."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlmodel import Session

from terrace.knowledge.base import Filter, IndexedChunk, Ranking, Scored
from terrace.knowledge.health.base import Strays
from terrace.knowledge.index import fulltext, inspecting, vectors
from terrace.knowledge.index.awaiting import at_hand
from terrace.knowledge.index.filters import allowed_documents
from terrace.knowledge.index.fusion import EXACT_CANDIDATES, fuse
from terrace.storage.database import Database
from terrace.types import Scope

MB = 1024**2
TEXT_CANDIDATES = 200
IDLE_SECONDS = 1800.0
MAX_RESIDENT_BYTES = 256 * MB  # four million chunks at 384 dimensions


ByWords = tuple[set[str] | None, dict[int, float]]
"""The documents that pass, None when all do, and what was found in them."""


class SQLiteIndex:
    """Searches run on the database's reader threads, where numpy and SQLite let the event loop go on."""

    def __init__(
        self, database: Database, *, idle_seconds: float = IDLE_SECONDS, max_bytes: int = MAX_RESIDENT_BYTES
    ) -> None:
        self._database = database
        self._residents = vectors.Residents(idle_seconds=idle_seconds, max_bytes=max_bytes)
        self._loading = asyncio.Lock()

    @property
    def resident(self) -> int:
        """How many (tenant, model) pairs have their sign bits in memory."""
        return len(self._residents)

    def add_text(self, session: Session, scope: Scope, chunks: Sequence[IndexedChunk]) -> None:
        """The chunk rows must be stored already: the words are read from there."""
        session.flush()
        fulltext.add(session, scope, [chunk.id for chunk in chunks])

    def add_vectors(self, session: Session, scope: Scope, model: str, chunk_ids: Sequence[str], vectors_: Any) -> None:
        session.flush()
        vectors.add(session, scope, model, chunk_ids, vectors_)

    def known_vectors(self, session: Session, scope: Scope, model: str, text_sha256s: Sequence[str]) -> dict[str, Any]:
        return vectors.known(session, scope, model, text_sha256s)

    def remove_document(self, session: Session, scope: Scope, document_id: str) -> None:
        session.flush()
        fulltext.remove(session, scope, document_id)
        vectors.remove(session, scope, document_id)

    def counts(self, session: Session, scope: Scope) -> dict[str, int]:
        return {"chunks": fulltext.count(session, scope), "vectors": vectors.count(session, scope)}

    def strays(self, session: Session, scope: Scope, serving: Sequence[str] | None) -> Strays:
        return inspecting.strays(session, scope, serving, fulltext.strays(session, scope))

    def remove_vectors(
        self, session: Session, scope: Scope, serving: Sequence[str] | None, kind: str, limit: int
    ) -> list[str]:
        return inspecting.remove(session, scope, serving, kind, limit)

    def mend_text(self, session: Session, scope: Scope, limit: int, after: int = 0) -> int:
        return fulltext.mend(session, scope, limit, after)

    def vectors_after(
        self, session: Session, scope: Scope, model: str, after: int, limit: int
    ) -> tuple[int, list[str], Any]:
        return inspecting.after(session, scope, model, after, limit)

    async def retrieve(
        self, scope: Scope, query: str, vector: Any | None, *, model: str | None, k: int, filter: Filter
    ) -> Ranking:
        coming = asyncio.ensure_future(at_hand(vector))
        (found, resident), vector = await asyncio.gather(
            self._meanwhile(scope, query, coming, model, k, filter), coming
        )
        return lambda session: _ranked(session, scope, filter, found, resident, vector, model, k)

    async def search(
        self, scope: Scope, query: str, vector: Any | None, *, model: str | None, k: int, filter: Filter
    ) -> list[Scored]:
        return await self._database.read(await self.retrieve(scope, query, vector, model=model, k=k, filter=filter))

    async def _meanwhile(
        self, scope: Scope, query: str, coming: asyncio.Future[Any], model: str | None, k: int, filter: Filter
    ) -> tuple[ByWords | None, vectors.Resident | None]:
        """What is found by words, and the signs of the vectors, brought up to date while there is, or may yet be, one
        to compare them with."""
        found = await self._database.read(_by_words, scope, query, max(k, TEXT_CANDIDATES), filter) if query else None
        if model is None or _without(coming):
            return found, None
        resident, more = self._residents.of((scope.tenant, model)), True
        while more and not _without(coming):
            # One reader thread at most is busy loading; a small tenant need not wait for all of a large one.
            async with self._loading:
                more = await self._database.read(resident.read_piece)
        return found, resident

    def search_exactly(
        self, session: Session, scope: Scope, queries: Sequence[str], vectors_: Any | None, *, model: str | None, k: int
    ) -> list[list[Scored]]:
        texts = [fulltext.search(session, scope, query, TEXT_CANDIDATES) for query in queries]
        nears: list[dict[int, float] | None] = [None] * len(queries)
        if vectors_ is not None and model is not None:
            nears = [*vectors.nearest_of_all(session, scope, model, vectors_, EXACT_CANDIDATES)]
            for text, near, vector in zip(texts, nears, vectors_, strict=True):
                assert near is not None
                unseen = [number for number in text if number not in near]
                near |= vectors.cosines(session, scope, model, vector, "number", unseen)
        return [fuse(text, near, k) for text, near in zip(texts, nears, strict=True)]

    async def close(self) -> None:
        """What is in memory goes with the process."""


def _without(coming: asyncio.Future[Any]) -> bool:
    """Whether it is known that there will be no vector."""
    return coming.done() and (coming.cancelled() or coming.exception() is not None or coming.result() is None)


def _by_words(session: Session, scope: Scope, query: str, count: int, filter: Filter) -> ByWords:
    allowed = allowed_documents(session, scope, filter)
    found = fulltext.search(session, scope, query, count, allowed) if allowed is None or allowed else {}
    return allowed, found


def _ranked(
    session: Session,
    scope: Scope,
    filter: Filter,
    found: ByWords | None,
    resident: vectors.Resident | None,
    vector: Any | None,
    model: str | None,
    k: int,
) -> list[Scored]:
    allowed, text = found or (allowed_documents(session, scope, filter), {})
    near: dict[int, float] | None = None
    if resident is not None and vector is not None and model is not None:
        ids = resident.nearest(vector, 2 * k, allowed)
        near = vectors.cosines(session, scope, model, vector, "id", ids)
        unseen = [number for number in text if number not in near]
        near |= vectors.cosines(session, scope, model, vector, "number", unseen)
    return fuse(text, near, k)
