"""Generations as doors and the house know them: made, compared, switched, dropped."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, select

from terrace import settings
from terrace.errors import Conflict, Invalid, TerraceError, Unavailable
from terrace.jobs.base import FINAL, Jobs
from terrace.jobs.tables import JobRow
from terrace.knowledge.base import Index
from terrace.knowledge.embedding.absent import AbsentEmbedder
from terrace.knowledge.embedding.base import EmbedderState, StatefulEmbedder
from terrace.knowledge.generations import store
from terrace.knowledge.generations.base import BOUND, REEMBED, Comparison, Generation
from terrace.knowledge.generations.building import PIECE, Builder
from terrace.knowledge.generations.serving import Keyed, ServingEmbedder, waiting
from terrace.knowledge.generations.tables import GenerationRow
from terrace.storage import Database, after_commit
from terrace.storage.database import every_tenant
from terrace.types import DEFAULT_TENANT, Scope, moment, new_id, now

log = logging.getLogger(__name__)

MOST = 5
RELOAD_SECONDS = 0.5  # after another process has written, which it does all the time, and seldom about generations
HOME = Scope(DEFAULT_TENANT)  # whose the jobs are: generations are the installation's

Opener = Callable[[settings.Embedding], StatefulEmbedder]


class Generations:
    """`open` makes an embedder of settings; it must not raise for a model that cannot be had."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        index: Index,
        embedder: ServingEmbedder,
        configured: settings.Embedding,
        open: Opener,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._embedder = embedder
        self._configured = configured
        self._open = open
        self._opened: dict[tuple[str, str], StatefulEmbedder] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._stale = False
        self._unwatch: Callable[[], None] | None = None
        self._reload: asyncio.TimerHandle | None = None
        self._keys: tuple[str, ...] = ()
        self.builder = Builder(database, index, self.embedder_of, self._after)

    # -- while the house stands

    async def start(self, *, build: bool = True) -> None:
        """Serve what the last switch said. Where the settings name another model than that, `build` it beside."""
        self._unwatch = self._database.watch(self._others_wrote)
        if build and self._wanted:
            await self._database.write(self._follow_settings)
        await self.refresh()

    async def close(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
        if self._reload is not None:
            self._reload.cancel()
        if self._refreshing is not None:
            await asyncio.gather(self._refreshing, return_exceptions=True)
        for each in self._opened.values():
            await each.close()

    @property
    def _wanted(self) -> bool:
        return self._configured.model not in ("", "none") and self._embedder.configured.state().state != "absent"

    async def refresh(self) -> None:
        """Take from the table who serves, and what new passages go into besides."""
        rows = await self._database.read(store.every)
        self._keys = tuple(row.key for row in rows)
        if not self._wanted and self._configured.model in ("", "none"):
            return
        serving = next((row for row in rows if row.state == "serving"), None)
        if serving is None:
            self._embedder.serve(self._embedder.configured, ())
            return
        present = self.embedder_of(serving)
        others = [self.embedder_of(row) for row in rows if row is not serving]
        if present.state().state == "absent":
            coming = next((row.model for row in rows if row.state == "building"), None)
            present = waiting(serving.key, serving.model, coming) if coming else present
        self._embedder.serve(present, [each for each in others if each.state().state != "absent"])

    def state(self) -> EmbedderState:
        """Of the model that search uses now."""
        return self._embedder.state()

    def keys(self) -> tuple[str, ...]:
        """What vectors are kept under: none of them is left over."""
        return self._keys

    def embedder_of(self, row: GenerationRow) -> StatefulEmbedder:
        """Under the generation's key; absent when its model can't be had, or is another one under the same name."""
        configured = self._configured
        if (row.setting, row.precision) == (configured.model, configured.precision):
            inner = self._embedder.configured
        else:
            known = self._opened.get((row.setting, row.precision))
            wanted = configured.model_copy(update={"model": row.setting, "precision": row.precision})
            inner = known or self._open(wanted)
            self._opened[row.setting, row.precision] = inner
        if inner.name != row.model:
            inner = AbsentEmbedder(row.model, f"{row.setting} is another model now than {row.model}.")
        return inner if row.key == inner.name else Keyed(inner, row.key)

    def _others_wrote(self) -> None:
        if self._reload is None:
            self._reload = asyncio.get_running_loop().call_later(RELOAD_SECONDS, self._changed)

    def _changed(self) -> None:
        """Another process wrote, or we did."""
        if self._reload is not None:
            self._reload.cancel()
            self._reload = None
        self._stale = True
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refreshed())

    async def _refreshed(self) -> None:
        while self._stale:
            self._stale = False
            try:
                await self.refresh()
            except (TerraceError, DBAPIError) as error:
                log.warning("which vectors serve could not be read: %s", error)

    def _after(self, session: Session) -> None:
        after_commit(session, self._changed)

    def _follow_settings(self, session: Session) -> None:
        """The first model serves at once; another one than serves is built beside it."""
        configured = self._embedder.configured
        rows = store.every(session)
        serving = next((row for row in rows if row.state == "serving"), None)
        if serving is None:
            session.add(self._row(configured.name, configured.name, "serving"))
        elif serving.model != configured.name:
            same = next((row for row in rows if row.model == configured.name), None)
            if same is None:
                row = self._row(configured.name, configured.name, "building")
                session.add(row)
                session.flush()
                self._enqueue(session, HOME, row)
            elif same.state == "building" and not (same.job_id and _alive(session, same.job_id)):
                self._enqueue(session, HOME, store.get(session, same.id))
            elif same.state != "building":  # a rollback by hand must outlive a restart
                log.warning("%s serves; switch to the generation %s of the settings' model", serving.key, same.id)

    # -- doors

    async def list(self) -> list[Generation]:
        """That which serves first."""

        def read(session: Session) -> Any:
            return store.every(session), store.counts(session)

        rows, (vectors, chunks) = await self._database.read(read)
        return [self._shown(row, vectors.get(row.key, 0), chunks) for row in rows]

    async def get(self, generation_id: str) -> Generation:
        """Raises Missing."""
        await self._database.read(lambda session: store.get(session, generation_id).id)
        return next(each for each in await self.list() if each.id == generation_id)

    async def create(self, scope: Scope, *, automatic: bool = True, bound: float = BOUND) -> Generation:
        """Make all vectors anew by the model of the settings. Raises Conflict while one is being made."""
        if not 0 <= bound <= 1:
            raise Invalid("`bound` is between 0 and 1.", code="bad_bound")
        made = await self._database.write(self._create, scope, automatic, bound)
        await self.refresh()
        return await self.get(made)

    @every_tenant
    def start_one(self, session: Session, scope: Scope, payload: dict[str, Any]) -> str:
        """What a schedule starts: as `create`; the job. While one is being made, that job.

        Of those that served before, the latest is kept for a rollback; older ones go.
        """
        rows = store.every(session)
        for row in rows:
            if row.state == "building" and row.job_id and _alive(session, row.job_id):
                return row.job_id
        retired = sorted((row for row in rows if row.state == "retired"), key=lambda row: row.switched_at or 0)
        for old in retired[:-1]:
            session.delete(store.get(session, old.id))
        session.flush()
        row = store.get(session, self._create(session, scope, True, BOUND))
        self._after(session)
        return str(row.job_id)

    @every_tenant
    def _create(self, session: Session, scope: Scope, automatic: bool, bound: float) -> str:
        state = self._embedder.configured.state()
        if state.state == "absent":
            raise Unavailable(f"There is no embedding model: {state.why}", code="embedding_absent")
        rows = store.every(session)
        building = next((row for row in rows if row.state == "building"), None)
        if building is not None:
            if building.job_id and _alive(session, building.job_id):
                raise Conflict("A generation is being made already.", code="generation_building")
            row = store.get(session, building.id)  # it stopped early: go on
            self._enqueue(session, scope, row)
            return row.id
        for old in [row for row in rows if row.state in ("retired", "ready")][: max(0, len(rows) - MOST + 1)]:
            raise Conflict(f"There are {MOST} generations; drop one, such as {old.id}.", code="too_many_generations")
        row = self._row(self._embedder.configured.name, self._free_key(session, rows), "building", automatic, bound)
        session.add(row)
        session.flush()
        self._enqueue(session, scope, row)
        return row.id

    def _free_key(self, session: Session, rows: Sequence[GenerationRow]) -> str:
        """One under which there is nothing, not even what a dropped generation has still to lose."""
        name, taken = self._embedder.configured.name, {row.key for row in rows} | set(store.keys(session))
        numbers = (name if number == 1 else f"{name}#{number}" for number in count(1))
        return next(key for key in numbers if key not in taken)

    async def switch(self, scope: Scope, generation_id: str) -> Generation:
        """Have it serve: at once when all its vectors are there, else as soon as its job has made them."""

        @every_tenant
        def write(session: Session) -> None:
            row = store.get(session, generation_id)
            if row.state == "serving":
                return
            if row.state == "building":
                raise Conflict("It is still being made; wait for its job.", code="generation_building")
            if store.complete(session, row.key):
                store.switch(session, row)
            elif not (row.job_id and _alive(session, row.job_id)):
                self._enqueue(session, scope, row, switch=True)

        if not (before := await self.get(generation_id)).available:
            raise Unavailable(f"Its model {before.model} can't be had now.", code="embedding_absent")
        await self._database.write(write)
        await self.refresh()
        return await self.get(generation_id)

    async def drop(self, scope: Scope, generation_id: str) -> None:
        """With its vectors. Raises Conflict for the one that serves."""

        def forget(session: Session) -> tuple[str, str | None]:
            row = store.get(session, generation_id)
            if row.state == "serving":
                raise Conflict("This generation serves; switch to another one first.", code="generation_serves")
            key, job_id = row.key, row.job_id
            session.delete(row)
            return key, job_id if job_id and _alive(session, job_id) else None

        key, job_id = await self._database.write(forget)
        await self.refresh()
        if job_id is not None:
            await self._jobs.cancel(HOME, job_id, everyone=True)
        while await self._database.write(store.drop_vectors, key, PIECE):
            pass

    # -- rows

    def _row(self, model: str, key: str, state: str, automatic: bool = True, bound: float = BOUND) -> GenerationRow:
        at = now()
        serves = state == "serving"
        return GenerationRow(
            id=new_id("gen"), key=key, model=model, setting=self._configured.model,
            precision=self._configured.precision, state=state, automatic=automatic, bound=bound, created_at=at,
            ready_at=at if serves else None, switched_at=at if serves else None,
            dimensions=self._embedder.configured.dimensions,
        )  # fmt: skip

    def _enqueue(self, session: Session, scope: Scope, row: GenerationRow, *, switch: bool = False) -> None:
        payload = {"generation_id": row.id} | ({"switch": True} if switch else {})
        row.job_id = self._jobs.enqueue(session, Scope(HOME.tenant, scope.user), REEMBED, payload, priority=-10)
        row.note = ""
        session.add(row)
        session.flush()

    def _shown(self, row: GenerationRow, vectors: int, chunks: int) -> Generation:
        return Generation(
            id=row.id, key=row.key, model=row.model, state=row.state,  # type: ignore[arg-type]
            available=self.embedder_of(row).state().state != "absent",
            dimensions=row.dimensions, vectors=vectors, chunks=chunks, automatic=row.automatic, bound=row.bound,
            comparison=None if row.comparison is None else Comparison(**row.comparison),
            note=row.note, job_id=row.job_id, created_at=moment(row.created_at),
            ready_at=None if row.ready_at is None else moment(row.ready_at),
            switched_at=None if row.switched_at is None else moment(row.switched_at),
        )  # fmt: skip


def _alive(session: Session, job_id: str) -> bool:
    query = select(JobRow.id).where(JobRow.id == job_id, JobRow.state.not_in(FINAL))  # type: ignore[attr-defined]
    return session.exec(query).first() is not None
