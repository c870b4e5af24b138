"""Answers given again. A look costs one read; an answer that serves costs no model call."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlmodel import Session

from terrace import settings
from terrace.chat.cache import likeness, store
from terrace.chat.cache.base import Asking, Found, Place, Tally, Written
from terrace.chat.cache.guard import same_meaning
from terrace.chat.cache.keys import contexts_of
from terrace.errors import TerraceError
from terrace.models.base import Embedder
from terrace.storage import Database, after_commit
from terrace.telemetry.calls import Usage
from terrace.types import Scope, now

log = logging.getLogger(__name__)

EMBED_SECONDS = 5.0  # a question waits no longer for its meaning
MAX_CHARS = 50_000  # of a question or an answer: longer ones are not kept
HOUR = 3600.0

Cost = Callable[[str, Usage], int | None]
"""What a model (by its public id) would have cost, in picodollars; None when nobody knows."""


def _unknown(model: str, usage: Usage) -> int | None:
    return None


class AnswerCache:
    """`count` hears of each hit, by its kind, and of each `miss`."""

    def __init__(
        self,
        database: Database,
        options: settings.Cache,
        embedder: Embedder | None = None,
        *,
        cost: Cost = _unknown,
        count: Callable[[str], None] = lambda kind: None,
        clock: Callable[[], float] = now,
    ) -> None:
        self._database = database
        self._options = options
        self._embedder = embedder
        self._cost = cost
        self._count = count
        self._clock = clock

    async def knows(self, scope: Scope, asking: Asking) -> bool:
        """Whether this very question has an answer now."""
        if not self._options.exact:
            return False
        return (await self._database.read(self._look, scope, asking))[1] is not None

    async def look(self, scope: Scope, asking: Asking, *, renew: bool = False) -> tuple[Place, Found | None]:
        """The answer to a question, and the place for one. With `renew` it must be a new one."""
        place, found = await self._database.read(self._look, scope, asking)
        if renew or not self._options.exact:
            found = None
        if found is None and self._options.semantic and not asking.history and self._embedder is not None:
            place = await self._with_vector(scope, place, self._embedder)
            if not renew and place.vector is not None:
                found = await self._alike(scope, place, place.vector)
        if found is None:
            self._count("miss")
        return place, found

    def _look(self, session: Session, scope: Scope, asking: Asking) -> tuple[Place, Found | None]:
        own, shared = contexts_of(scope, asking)
        place = Place(asking, own, shared, store.library(session, scope, asking))
        return place, store.exact(session, scope, place, self._since())

    async def _with_vector(self, scope: Scope, place: Place, embedder: Embedder) -> Place:
        try:
            async with asyncio.timeout(EMBED_SECONDS):
                vectors = await embedder.embed([place.asking.question], query=True, scope=scope)
        except (TerraceError, TimeoutError) as error:
            log.info("the cache goes by the exact question alone: %s", str(error) or "the embedding takes too long")
            return place
        return replace(place, vector=likeness.as_bytes(vectors[0]), embedder=embedder.name)

    async def _alike(self, scope: Scope, place: Place, vector: bytes) -> Found | None:
        since = self._since()

        def find(session: Session) -> Found | None:
            known = store.candidates(session, scope, place, since)
            for each in likeness.alike(vector, known, self._options.similarity):
                if same_meaning(each.question, place.asking.question):
                    return store.read(session, scope, place, each.key, since)
            return None

        return await self._database.read(find)

    def given(self, session: Session, scope: Scope, found: Found) -> None:
        """In the transaction that gives the answer again."""
        store.count_hit(session, scope, found)
        after_commit(session, lambda: self._count(found.kind))

    def written(self, response: str, sources: list[dict[str, Any]], model: str, usage: Usage) -> Written:
        """An answer with what it cost."""
        return Written(response, sources, model, usage.input_tokens, usage.output_tokens, self._cost(model, usage))

    def keep(self, session: Session, scope: Scope, place: Place, written: Written) -> None:
        """In the transaction that ends the answer: it may serve from now on."""
        if max(len(place.asking.question), len(written.response)) <= MAX_CHARS:
            store.keep(session, scope, place, written, self._clock(), self._options.entries, self._since())

    async def tally(self, scope: Scope) -> Tally:
        return await self._database.read(store.tally, scope, self._since())

    async def clear(self, scope: Scope) -> int:
        """Forget every answer; how many there were."""
        return await self._database.write(store.clear, scope)

    def _since(self) -> float:
        return self._clock() - self._options.hours * HOUR
