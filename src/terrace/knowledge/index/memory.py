"""The index as plain dictionaries: for tests, and as the shortest description of what an index does."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from sqlmodel import Session, col, select

from terrace.knowledge.base import Filter, IndexedChunk, Ranking, Scored
from terrace.knowledge.index.awaiting import at_hand
from terrace.knowledge.index.fusion import fuse
from terrace.knowledge.index.words import content_words, words
from terrace.knowledge.tables import ChunkRow
from terrace.types import Scope

K1, B = 1.2, 0.75  # BM25's usual constants
TITLE_TIMES = 2


class MemoryIndex:
    """Keeps no tags: a filter by tag finds nothing here unless `tags` says which documents carry which."""

    def __init__(self, tags: dict[str, Sequence[str]] | None = None) -> None:
        self._tags = tags or {}
        self._chunks: dict[tuple[str, str], IndexedChunk] = {}
        self._numbers: dict[str, int] = {}  # of the rows of these chunks
        self._vectors: dict[tuple[str, str, str], Any] = {}

    def add_text(self, session: Session, scope: Scope, chunks: Sequence[IndexedChunk]) -> None:
        self._chunks |= {(scope.tenant, chunk.id): chunk for chunk in chunks}
        rows = select(ChunkRow.id, ChunkRow.number).where(col(ChunkRow.id).in_([chunk.id for chunk in chunks]))
        self._numbers |= {id: number for id, number in session.exec(rows) if number is not None}

    def add_vectors(self, session: Session, scope: Scope, model: str, chunk_ids: Sequence[str], vectors: Any) -> None:
        self._vectors |= {(scope.tenant, model, id): row for id, row in zip(chunk_ids, vectors, strict=True)}

    def known_vectors(self, session: Session, scope: Scope, model: str, text_sha256s: Sequence[str]) -> dict[str, Any]:
        return {}  # it keeps no hashes, so it knows of none

    def remove_document(self, session: Session, scope: Scope, document_id: str) -> None:
        gone = {
            key for key, chunk in self._chunks.items() if key[0] == scope.tenant and chunk.document_id == document_id
        }
        self._chunks = {key: chunk for key, chunk in self._chunks.items() if key not in gone}
        self._vectors = {key: row for key, row in self._vectors.items() if (key[0], key[2]) not in gone}

    def counts(self, session: Session, scope: Scope) -> dict[str, int]:
        return {
            "chunks": sum(tenant == scope.tenant for tenant, _ in self._chunks),
            "vectors": sum(tenant == scope.tenant for tenant, _, _ in self._vectors),
        }

    async def retrieve(
        self, scope: Scope, query: str, vector: Any | None, *, model: str | None, k: int, filter: Filter
    ) -> Ranking:
        found = await self.search(scope, query, vector, model=model, k=k, filter=filter)
        return lambda session: found

    async def search(
        self, scope: Scope, query: str, vector: Any | None, *, model: str | None, k: int, filter: Filter
    ) -> list[Scored]:
        mine = [chunk for (tenant, _), chunk in self._chunks.items() if tenant == scope.tenant]
        numbers = {self._numbers[chunk.id]: chunk for chunk in mine if self._passes(chunk, filter)}
        text = self._bm25(query, mine, numbers)
        vector = await at_hand(vector)
        near = None
        if vector is not None and model is not None:
            rows = {number: self._vectors.get((scope.tenant, model, chunk.id)) for number, chunk in numbers.items()}
            near = {number: float(row @ vector) for number, row in rows.items() if row is not None}
        return fuse(text, near, k)

    def _passes(self, chunk: IndexedChunk, filter: Filter) -> bool:
        return (
            (not filter.documents or chunk.document_id in filter.documents)
            and (not filter.collections or chunk.collection_id in filter.collections)
            and (not filter.tags or bool(set(filter.tags) & set(self._tags.get(chunk.document_id, ()))))
        )

    def _bm25(self, query: str, all: Sequence[IndexedChunk], numbers: Mapping[int, IndexedChunk]) -> dict[int, float]:
        """Robertson & Zaragoza, 2009, over whole words."""
        bags = {chunk.id: _bag(chunk) for chunk in all}
        average = sum(map(len, bags.values())) / max(1, len(bags))
        scores = {}
        for number, chunk in numbers.items():
            bag, score = bags[chunk.id], 0.0
            for word in content_words(query):
                times = bag.count(word)
                holding = sum(word in each for each in bags.values())
                idf = log(1 + (len(bags) - holding + 0.5) / (holding + 0.5))
                score += idf * times * (K1 + 1) / (times + K1 * (1 - B + B * len(bag) / max(1, average)))
            if score > 0:
                scores[number] = score
        return scores


def _bag(chunk: IndexedChunk) -> list[str]:
    return words(" ".join((*[chunk.title] * TITLE_TIMES, *chunk.chunk.headings, chunk.chunk.text)))
