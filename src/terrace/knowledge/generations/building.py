"""The handler of `index.reembed`: vectors of a new generation, a batch at a time, while the old one serves.

What is made is in the database with each batch, so a killed attempt goes on where it stopped, and memory holds one
batch whatever the size of the corpus.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlmodel import Session, select

from terrace.errors import Conflict, Invalid, Unavailable
from terrace.jobs.base import RESUMING_CRASHES, Context, Done, Job, JobKind
from terrace.knowledge.base import Index
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.generations import store
from terrace.knowledge.generations.base import REEMBED, Comparison
from terrace.knowledge.generations.comparing import compare
from terrace.knowledge.generations.tables import GenerationRow
from terrace.storage import Database
from terrace.types import Scope, now

BATCH = 128  # passages embedded and stored at a time
QUESTIONS = 200
PIECE = 2000  # vectors dropped in one transaction
ROUNDS = 20  # for passages that come in while we finish
INCOMPLETE = "Passages came in faster than they were embedded; switch to it by hand when that has calmed down."
TIMEOUT = 7 * 86_400.0  # seconds one attempt may take; the next goes on where it stopped


class Builder:
    """`open` gives a generation's embedder, under its key; `changed` hears of every transaction that changes one."""

    def __init__(
        self,
        database: Database,
        index: Index,
        open: Callable[[GenerationRow], StatefulEmbedder],
        changed: Callable[[Session], None],
    ) -> None:
        self._database = database
        self._index = index
        self._open = open
        self._changed = changed

    def kind(self) -> JobKind:
        return JobKind(
            REEMBED, self.run, timeout=TIMEOUT, max_crashes=RESUMING_CRASHES, on_end=self.ended, on_retry=self.again
        )

    async def run(self, context: Context) -> Done:
        row: GenerationRow = await context.write(lambda session: _begin(session, context))
        embedder = self._open(row)
        if (state := embedder.state()).state == "absent":
            raise Unavailable(f"The model {row.model} is away: {state.why}", code="embedding_absent")
        await self._sweep(context)
        forced = bool(context.payload.get("switch"))
        for _ in range(ROUNDS):
            await self._fill(context, row.key, embedder)
            if await self._database.read(store.complete, row.key):
                break
        comparison = None if forced else await self._compared(row, embedder)
        why = "" if forced else _why_not(row, comparison)

        def finish(session: Session) -> None:
            kept = store.get(session, row.id)
            kept.dimensions = store.dimensions(session, row.key)
            kept.note = why or ("" if store.complete(session, row.key) else INCOMPLETE)
            kept.comparison = kept.comparison if forced or comparison is None else asdict(comparison)
            if kept.state == "building":
                kept.state, kept.ready_at = "ready", now()
            if not kept.note and kept.state != "serving":
                store.switch(session, kept)
            self._changed(session)

        return Done({"generation_id": row.id}, commit=finish)

    async def _sweep(self, context: Context) -> None:
        """Vectors of generations that a schedule dropped to make room."""
        for key in await self._database.read(store.numbered_leftovers):
            await self._drop(context, key)

    async def _drop(self, context: Context, key: str) -> None:
        while await context.write(lambda session: store.drop_vectors(session, key, PIECE)):
            pass

    async def _fill(self, context: Context, key: str, embedder: StatefulEmbedder) -> None:
        """Once over everything; `after` only grows, so passages nobody can embed don't hold it up."""
        made, chunks = await self._database.read(store.counts)
        done, after = made.get(key, 0), 0
        while batch := await self._database.read(store.missing, key, after, BATCH):
            context.progress(done, max(chunks, done), f"{done:,} of {chunks:,} passages embedded")
            for tenant in dict.fromkeys(each[2] for each in batch):
                mine = [each for each in batch if each[2] == tenant]
                vectors = await embedder.embed([each[3] for each in mine], scope=Scope(tenant))
                await self._add(context, Scope(tenant), key, [each[1] for each in mine], vectors)
            done, after = done + len(batch), batch[-1][0]
        context.progress(chunks, max(chunks, 1), "all passages embedded")

    async def _add(self, context: Context, scope: Scope, key: str, ids: list[str], vectors: Any) -> None:
        await context.write(lambda session: self._index.add_vectors(session, scope, key, ids, vectors))

    async def _compared(self, row: GenerationRow, embedder: StatefulEmbedder) -> Comparison | None:
        """With the one that serves; None when that has no model to ask with, or is this one."""
        before = await self._database.read(_serving)
        if before is None or before.id == row.id:
            return None
        old = self._open(before)
        if old.state().state == "absent":
            return None
        questions = await self._database.read(store.queries, QUESTIONS)
        return await compare(self._index, old, embedder, questions)

    def ended(self, session: Session, scope: Scope, job: Job) -> None:
        """It failed for good or was cancelled: what is made stays, and a new run goes on from there."""
        try:
            row = _of(session, job.payload, job.id)
        except (Conflict, Invalid):
            return
        failed = job.error is not None and job.state == "failed"
        row.note = job.error.message if failed and job.error is not None else "It was cancelled; start it again."
        self._changed(session)

    def again(self, session: Session, scope: Scope, job: Job) -> None:
        _of(session, job.payload, job.id).note = ""


def _why_not(row: GenerationRow, comparison: Comparison | None) -> str:
    """Why it does not take its place by itself; empty when it does."""
    if not row.automatic:
        return "It is ready; switch to it by hand."
    if comparison is not None and comparison.overlap is not None and comparison.overlap < row.bound:
        return (
            f"It finds {comparison.overlap:.0%} of what the one before found, less than the {row.bound:.0%} wanted: "
            "look at it and switch by hand."
        )
    return ""


def _begin(session: Session, context: Context) -> GenerationRow:
    row = _of(session, context.payload, context.job_id)
    session.flush()
    session.expunge(row)
    return row


def _of(session: Session, payload: dict[str, Any], job_id: str) -> GenerationRow:
    """The generation, if this job may write it. Raises Conflict (dropped, or a newer job's)."""
    query = select(GenerationRow).where(
        GenerationRow.id == str(payload.get("generation_id", "")), GenerationRow.job_id == job_id
    )
    if (row := session.exec(query).one_or_none()) is not None:
        return row
    raise Conflict("The generation is dropped, or a newer job makes it.", code="superseded")


def _serving(session: Session) -> GenerationRow | None:
    row = store.serving(session)
    if row is not None:
        session.expunge(row)
    return row
