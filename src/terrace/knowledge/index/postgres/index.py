"""The index on PostgreSQL: BM25 over a GIN index for words, pgvector for meaning, the same ranking as on SQLite."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from terrace.errors import TerraceError
from terrace.knowledge.base import Filter, IndexedChunk, Ranking, Scored
from terrace.knowledge.health.base import Strays
from terrace.knowledge.index import inspecting
from terrace.knowledge.index.awaiting import at_hand, nothing
from terrace.knowledge.index.fusion import EXACT_CANDIDATES, fuse
from terrace.knowledge.index.postgres import counts, graphs, vectors, words
from terrace.knowledge.index.postgres.allowing import NOTHING, Passing, asking_state
from terrace.knowledge.index.postgres.asking import SETTINGS, ask_together
from terrace.knowledge.index.postgres.kept import Kept
from terrace.knowledge.index.postgres.signs import MOST_BYTES, KeptSigns
from terrace.storage.database import Database, after_commit, driver_of, with_settings
from terrace.types import Scope

log = logging.getLogger(__name__)

TEXT_CANDIDATES = 200
TEND_AFTER = 2_000  # vectors that came or went since somebody looked what graphs a tenant needs
REST_SECONDS = 3.0  # without another one: no more are coming
PATIENCE_SECONDS = 600.0
SPACE_SECONDS = 5.0  # that what is known of a space is taken for true
REMEMBERED = 1000  # of each; all are forgotten when there would be more


class PostgresIndex:
    """Little is kept in memory: how much was written since a tenant's counts were folded and its graphs tended, which
    spaces there are, for seconds, and what filters let through and the signs of it, for as long as nothing changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unfolded: Counter[str] = Counter()
        self._untended: Counter[str] = Counter()
        self._tended: set[str] = set()
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._passing = Passing()
        self._spaces: dict[tuple[str, str, int], tuple[vectors.Space, float]] = {}
        self._signs: KeptSigns = Kept(MOST_BYTES)

    def add_text(self, session: Session, scope: Scope, chunks: Sequence[IndexedChunk]) -> None:
        session.flush()
        words.add(session, scope, chunks)
        after_commit(session, partial(self._texts_changed, scope))

    def add_vectors(self, session: Session, scope: Scope, model: str, chunk_ids: Sequence[str], vectors_: Any) -> None:
        session.flush()
        vectors.add(session, scope, model, chunk_ids, vectors_)
        after_commit(session, partial(self._vectors_changed, scope, len(chunk_ids)))

    def known_vectors(self, session: Session, scope: Scope, model: str, text_sha256s: Sequence[str]) -> dict[str, Any]:
        return vectors.known(session, scope, model, text_sha256s)

    def remove_document(self, session: Session, scope: Scope, document_id: str) -> None:
        session.flush()
        words.remove(session, scope, document_id)
        gone = vectors.remove(session, scope, document_id)
        after_commit(session, partial(self._texts_changed, scope))
        after_commit(session, partial(self._vectors_changed, scope, gone))

    def counts(self, session: Session, scope: Scope) -> dict[str, int]:
        return {"chunks": words.count(session, scope), "vectors": vectors.count(session, scope)}

    def strays(self, session: Session, scope: Scope, serving: Sequence[str] | None) -> Strays:
        return inspecting.strays(session, scope, serving, words.strays(session, scope))

    def remove_vectors(
        self, session: Session, scope: Scope, serving: Sequence[str] | None, kind: str, limit: int
    ) -> list[str]:
        gone = inspecting.remove(session, scope, serving, kind, limit)
        after_commit(session, partial(self._vectors_changed, scope, TEND_AFTER if gone else 0))
        return gone

    def mend_text(self, session: Session, scope: Scope, limit: int, after: int = 0) -> int:
        after_commit(session, partial(self._texts_changed, scope))
        return words.mend(session, scope, limit, after)

    def vectors_after(
        self, session: Session, scope: Scope, model: str, after: int, limit: int
    ) -> tuple[int, list[str], Any]:
        return vectors.after(session, scope, model, after, limit)

    async def retrieve(
        self, scope: Scope, query: str, vector: Any | None, *, model: str | None, k: int, filter: Filter
    ) -> Ranking:
        text, vector, near = await self._looked_for(scope, query, vector, model, k, filter)

        def ranked(session: Session) -> list[Scored]:
            late = {}
            if near and model is not None:  # words were looked for before it was known what they mean
                unseen = [each.number for each in text if each.cosine is None and each.number not in near]
                late = vectors.cosines(session, scope, model, vector, unseen)
            return _fused(text, near and near | late, k)

        return ranked

    async def search(
        self, scope: Scope, query: str, vector: Any | None, *, model: str | None, k: int, filter: Filter
    ) -> list[Scored]:
        text, _, near = await self._looked_for(scope, query, vector, model, k, filter)
        return _fused(text, near, k)

    async def _looked_for(
        self, scope: Scope, query: str, vector: Any | None, model: str | None, k: int, filter: Filter
    ) -> tuple[Sequence[words.Found], Any | None, vectors.Cosines | None]:
        """What words brought, with cosines where the vector is at hand; the vector; and what is nearest to it.

        Both are looked for side by side: the server has a process for each, and whoever asks waits for the slower one
        instead of both.
        """
        if scope.tenant not in self._tended:
            self._vectors_changed(scope, TEND_AFTER)
        if (again := self._passing.asked_again(scope)) is not None:
            self._beside("map", scope, partial(self._mapped, filter=again))
        meaning = None if vector is None or model is None or isawaitable(vector) else (model, vector)
        text, (vector, near) = await asyncio.gather(
            self._database.read(self._by_words, scope, query, k, filter, meaning) if query else nothing(),
            self._meant(scope, model, vector, 2 * k, filter),
        )
        return text or [], vector, near

    async def _meant(
        self, scope: Scope, model: str | None, vector: Any | None, count: int, filter: Filter
    ) -> tuple[Any | None, vectors.Cosines | None]:
        vector = await at_hand(vector)
        if vector is None or model is None:
            return None, None
        return vector, await self._database.read(self._by_meaning, scope, model, vector, count, filter)

    @with_settings(SETTINGS)
    def _by_words(
        self,
        session: Session,
        scope: Scope,
        query: str,
        k: int,
        filter: Filter,
        meaning: tuple[str, Any] | None = None,
    ) -> list[words.Found]:
        count = max(k, TEXT_CANDIDATES)
        if filter == Filter():
            return words.search(session, scope, query, count, None, meaning)
        asked = words.asked_for(scope, query)
        numbers = words.numbers_of(asked)
        [(state,)], rows = ask_together(session, asking_state(scope, filter), counts.asking(scope, numbers))
        among = self._passing.of(session, scope, filter, state)
        if among is not None and among.within == NOTHING.within:
            return []
        return words.best(session, scope, asked, counts.read(numbers, rows), count, among, meaning)

    @with_settings(SETTINGS)
    def _by_meaning(
        self, session: Session, scope: Scope, model: str, vector: Any, count: int, filter: Filter
    ) -> vectors.Cosines:
        among = self._passing.of(session, scope, filter)
        if among is not None and among.within == NOTHING.within:
            return {}
        known = self._space(session, scope, model, len(vector))
        return vectors.nearest(session, scope, model, vector, count, known, self._signs, among) if known else {}

    def _space(self, session: Session, scope: Scope, model: str, width: int) -> vectors.Space | None:
        """As it was some seconds ago: with an old one a search takes longer, and finds the same."""
        key = scope.tenant, model, width
        known, until = self._spaces.get(key, (None, 0.0))
        if known is None or time.monotonic() > until:
            known = vectors.space(session, scope, model, width)
            if known is not None:
                _remember(self._spaces, key, (known, time.monotonic() + SPACE_SECONDS))
        return known

    def search_exactly(
        self, session: Session, scope: Scope, queries: Sequence[str], vectors_: Any | None, *, model: str | None, k: int
    ) -> list[list[Scored]]:
        driver_of(session).execute(SETTINGS)
        found = []
        for place, query in enumerate(queries):
            meaning = None if vectors_ is None or model is None else (model, vectors_[place])
            text = words.search(session, scope, query, TEXT_CANDIDATES, meaning=meaning, exact=True)
            near = meaning and vectors.nearest_of_all(session, scope, *meaning, EXACT_CANDIDATES)
            found.append(_fused(text, near, k))
        return found

    async def close(self) -> None:
        """Leave what goes on beside the searches; another process, or the next start, does it."""
        for task in list(self._tasks.values()):
            task.cancel()
        await self.settled()

    async def settled(self) -> None:
        """Wait for what goes on beside the searches now."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # -- what is done now and then, after a commit, on the event loop

    def _texts_changed(self, scope: Scope) -> None:
        self._unfolded[scope.tenant] += 1
        if self._unfolded[scope.tenant] >= counts.FOLD_AT:
            self._beside("fold", scope, self._folded)

    def _vectors_changed(self, scope: Scope, count: int) -> None:
        self._untended[scope.tenant] += count
        if self._untended[scope.tenant] >= TEND_AFTER or (count and scope.tenant not in self._tended):
            self._beside("tend", scope, self._graphs_tended)

    def _beside(self, what: str, scope: Scope, work: Callable[[Scope], Coroutine[Any, Any, None]]) -> None:
        """One at a time of a kind and a tenant."""
        key = what, scope.tenant
        if key not in self._tasks:
            task = self._tasks[key] = asyncio.get_running_loop().create_task(work(scope), name=f"{what} the index")
            task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def _folded(self, scope: Scope) -> None:
        self._unfolded.pop(scope.tenant, None)
        await _tried("its words were not counted", self._database.write(counts.fold, scope))

    async def _graphs_tended(self, scope: Scope) -> None:
        if scope.tenant in self._tended:
            await self._rest(scope.tenant)
        self._tended.add(scope.tenant)
        self._untended.pop(scope.tenant, None)
        await _tried("its graphs were not tended", self._database.write(graphs.tend, scope))

    async def _mapped(self, scope: Scope, filter: Filter) -> None:
        await _tried("what a filter lets through was not mapped", self._database.read(self._passing.map, scope, filter))

    async def _rest(self, tenant: str) -> None:
        """Until a load of vectors is over: a graph made of all of them costs a third of one that grows with each."""
        until = time.monotonic() + PATIENCE_SECONDS
        came = -1
        while came != self._untended[tenant] and time.monotonic() < until:
            came = self._untended[tenant]
            await asyncio.sleep(REST_SECONDS)


def _remember(known: dict[Any, Any], key: Any, what: Any) -> None:
    if len(known) >= REMEMBERED:
        known.clear()
    known[key] = what


async def _tried(what: str, work: Coroutine[Any, Any, Any]) -> None:
    """Searches are right without it, only slower; the next change tries again."""
    try:
        await work
    except (TerraceError, DBAPIError) as error:
        log.warning("the index could not be looked after, %s: %s", what, error)


def _fused(text: Sequence[words.Found], near: vectors.Cosines | None, k: int) -> list[Scored]:
    known = {each.number: each.cosine for each in text if each.cosine is not None}
    return fuse({each.number: each.score for each in text}, near and near | known, k)
