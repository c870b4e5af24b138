"""A library whose embedding model can be exchanged. Models are arithmetic; some are away."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import text

from terrace import settings
from terrace.knowledge.embedding.absent import AbsentEmbedder
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.generations.queries import RecentQueries
from terrace.knowledge.generations.service import Generations
from terrace.knowledge.generations.serving import ServingEmbedder
from terrace.knowledge.search import Search
from terrace.types import Scope


class Turned(HashEmbedder):
    """As wide as the plain one, but every vector is turned: the two understand nothing of each other."""

    def __init__(self, name: str, turn: int) -> None:
        super().__init__(64)
        self._name = name
        self._turn = turn
        self.embedded = 0

    @property
    def name(self) -> str:
        return self._name

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        import numpy as np

        await asyncio.sleep(0)
        self.embedded += 0 if query else len(texts)
        vectors = await super().embed([f"{text} {self._name}" if self._turn else text for text in texts])
        return np.roll(vectors, self._turn, axis=1)


class Lab:
    def __init__(self, library: Any, model: str = "first") -> None:
        self.library = library
        self.models: dict[str, StatefulEmbedder] = {"first": Turned("first", 0), "second": Turned("second", 17)}
        self.away: set[str] = set()
        self.use(model)

    def use(self, model: str) -> None:
        """A start with this model in the settings."""
        library = self.library
        options = settings.Embedding(model=model)
        self.serving = ServingEmbedder(self.open(options))
        library.use(self.serving)
        self.generations = Generations(library.database, library.jobs, library.index, self.serving, options, self.open)
        library.jobs.register(self.generations.builder.kind())
        self.queries = RecentQueries(library.database)
        self.search = Search(library.database, library.index, self.serving, asked=self.queries.asked)

    def open(self, options: settings.Embedding) -> StatefulEmbedder:
        if options.model in self.away or options.model not in self.models:
            return AbsentEmbedder(options.model, f"{options.model} is away.")
        return self.models[options.model]

    async def build(self, job_id: str | None = None, *, writes: int = 100_000) -> None:
        """Run the job of what is being made, as an engine would."""
        if job_id is None:
            [row] = [each for each in await self.generations.list() if each.state == "building"]
            job_id = row.job_id
        await self.library.run(Scope(), job_id, writes=writes)
        query = text("UPDATE jobs SET state = 'succeeded' WHERE id = :id")
        await self.library.database.write(lambda session: session.execute(query, {"id": job_id}) and None)
        await self.generations.refresh()

    async def states(self) -> dict[str, str]:
        return {each.key: each.state for each in await self.generations.list()}

    async def found(self, scope: Scope, query: str, k: int = 5) -> list[tuple[str, float]]:
        result = await self.search.search(scope, query, k=k, mode="vector")
        return [(hit.chunk_id, round(hit.score, 5)) for hit in result.hits]


WORDS = (
    "quay", "tide", "harbour", "vessel", "lighthouse", "anchor", "rope", "sail", "mast", "crane", "cargo", "pilot",
    "buoy", "jetty", "dock", "ferry",
)  # fmt: skip


@pytest.fixture
async def lab(library: Any, scope: Scope) -> AsyncIterator[Lab]:
    lab = Lab(library)
    await lab.generations.start()
    for number in range(8):
        parts = [
            f"The {WORDS[(number + at) % 16]} and the {WORDS[(number * at + 3) % 16]} {number}." for at in range(40)
        ]
        await library.add(scope, "\n\n".join(parts), f"{number}.txt")
    yield lab
    await lab.queries.close()
    await lab.generations.close()
