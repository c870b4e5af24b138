"""Retrieval as doors and chat use it: a question goes in, passages with their place in a document come out."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlmodel import Session, col

from terrace.errors import Invalid, Missing, TerraceError
from terrace.knowledge.base import Filter, Hit, Index, Ranking
from terrace.knowledge.embedding.base import EmbeddingAbsent, StatefulEmbedder, present
from terrace.knowledge.hits import hits_of
from terrace.knowledge.index.awaiting import nothing
from terrace.knowledge.index.filters import called
from terrace.knowledge.naming import key
from terrace.knowledge.tables import CollectionRow
from terrace.storage.database import Database
from terrace.types import Scope

log = logging.getLogger(__name__)

Mode = Literal["hybrid", "text", "vector"]

MAX_QUERY_CHARS = 4000  # more is cut: nobody's question is longer, and a model reads only its first words
MAX_K = 100
EMBED_SECONDS = 5.0  # a hybrid search waits no longer for its meaning (a model being fetched, say)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`mode` is what was really used: `text` when no embedding could be had. `embedding` names the model."""

    hits: list[Hit]
    mode: Mode
    took_ms: float
    embedding: str | None


def _nobody(scope: Scope, heard: object) -> None:
    pass


class Search:
    """`found` hears which documents each search has found, `asked` what was asked."""

    def __init__(
        self,
        database: Database,
        index: Index,
        embedder: StatefulEmbedder,
        found: Callable[[Scope, Iterable[str]], None] = _nobody,
        asked: Callable[[Scope, str], None] = _nobody,
    ) -> None:
        self._database = database
        self._index = index
        self._embedder = embedder
        self._found = found
        self._asked = asked

    async def search(
        self, scope: Scope, query: str, *, k: int = 10, filter: Filter = Filter(), mode: Mode = "hybrid"
    ) -> SearchResult:
        """The k best chunks.

        Raises Invalid for an empty query or a k out of bounds, Missing for a collection that is not there,
        Unavailable for `mode="vector"` when no embedding can be had; `hybrid` then goes by words alone.
        """
        started = time.perf_counter()
        query = _bounded(query, k)
        embedder = present(self._embedder)  # one for the whole search: the next may have another
        words, meant = "" if mode == "vector" else query, None
        if mode != "text":
            meant = asyncio.ensure_future(_vector(embedder, scope, query, must=mode == "vector"))
        try:
            ranking, _ = await asyncio.gather(
                self._index.retrieve(scope, words, meant, model=embedder.name, k=k, filter=filter),
                self._database.read(_check_collections, scope, filter.collections) if filter.collections else nothing(),
            )
        finally:
            if meant is not None:  # who was refused, or left, waits for no embedding
                meant.cancel()
        model = None if meant is None or meant.result() is None else embedder.name
        hits = await self._database.read(_ranked_hits, scope, ranking)
        self._found(scope, {hit.document_id for hit in hits})
        self._asked(scope, query)
        took = (time.perf_counter() - started) * 1000
        return SearchResult(hits, "text" if model is None else mode, round(took, 2), model)


async def _vector(embedder: StatefulEmbedder, scope: Scope, query: str, *, must: bool) -> Any | None:
    try:
        async with asyncio.timeout(None if must else EMBED_SECONDS):
            return (await embedder.embed([query], query=True, scope=scope))[0]
    except EmbeddingAbsent:
        if must:
            raise
    except (TerraceError, TimeoutError) as error:
        if must:
            raise
        log.warning("searching by words alone: %s", str(error) or "the embedding model takes too long")
    return None


def _bounded(query: str, k: int) -> str:
    query = query.replace("\0", " ").strip()[:MAX_QUERY_CHARS]
    if not query:
        raise Invalid("The query is empty: say what to search for.", code="query_empty", status=422)
    if not 1 <= k <= MAX_K:
        raise Invalid(f"k must be between 1 and {MAX_K}.", code="k_out_of_range", status=422)
    return query


def _ranked_hits(session: Session, scope: Scope, ranking: Ranking) -> list[Hit]:
    return hits_of(session, scope, ranking(session))


def _check_collections(session: Session, scope: Scope, names: Sequence[str]) -> None:
    found = select(col(CollectionRow.id), col(CollectionRow.name_key)).where(*called(scope, names))
    known = {value for row in session.connection().execute(found) for value in row}
    for name in names:
        if name not in known and key(name) not in known:
            raise Missing(f"There is no collection {name!r}.", code="collection_missing")
