"""Sources as doors know them: made, listed, run, changed, removed."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from sqlmodel import Session

from terrace import settings
from terrace.errors import Invalid, Missing
from terrace.jobs.base import Jobs
from terrace.knowledge import naming, trash
from terrace.knowledge.sources import folder, patterns, store, urls
from terrace.knowledge.sources.base import RUN, Item, NewSource, Options, Outcome, Scheduling, Source, Unscheduled
from terrace.knowledge.sources.keeping import Keeper
from terrace.knowledge.sources.tables import SourceItemRow, SourceRow
from terrace.knowledge.store import get_collection
from terrace.outbound.base import Outbound
from terrace.storage import Blobs, Database
from terrace.types import Scope, new_id, now

log = logging.getLogger(__name__)

MAX_SOURCES = 500
MAX_PAGE = 200
MAX_NAME = 200


class Sources:
    """`scheduling` makes the schedule of a source that wants one."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        jobs: Jobs,
        keeper: Keeper,
        outbound: Outbound,
        options: settings.Schedules,
        scheduling: Scheduling | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._jobs = jobs
        self._keeper = keeper
        self._outbound = outbound
        self._options = options
        self._scheduling = scheduling or Unscheduled()

    async def create(self, scope: Scope, wanted: NewSource) -> Source:
        """Nothing is fetched yet. Raises Invalid for a place that may not be looked at."""
        row = self._row(scope, wanted)

        def add(session: Session) -> Source:
            if store.count(session, scope) >= MAX_SOURCES:
                raise Invalid(f"There may be at most {MAX_SOURCES} sources.", code="too_many_sources")
            if row.collection.startswith("col_"):
                row.collection = get_collection(session, scope, row.collection).name
            session.add(row)
            session.flush()
            return store.shown(session, scope, row)

        source = await self._database.write(add)
        if wanted.every is None and wanted.cron is None:
            return source
        try:
            schedule_id = await self._scheduling.start(scope, source, wanted)
        except BaseException:
            await self._database.write(store.forget, scope, [source.id])
            raise
        return await self._changed(scope, source.id, lambda row: setattr(row, "schedule_id", schedule_id))

    def _row(self, scope: Scope, wanted: NewSource) -> SourceRow:
        location = self._location(scope, wanted)
        if wanted.watch and wanted.kind != "folder":
            raise Invalid("Only a folder can be watched; give a site or feed a schedule.", code="not_a_folder")
        if wanted.every is not None and wanted.cron is not None:
            raise Invalid("Give either `every` or `cron`, not both.", code="two_schedules")
        default = location.rstrip("/").rpartition("/")[2] if wanted.kind == "folder" else urls.site(location)
        return SourceRow(
            id=new_id("src"),
            tenant_id=scope.tenant,
            user_id=scope.user,
            kind=wanted.kind,
            name=_name(wanted.name) or default[:MAX_NAME],
            location=location,
            collection=naming.collection_name(wanted.collection),
            tags=list(naming.tag_names(wanted.tags)),
            options=asdict(_checked(wanted.options)),
            watch=wanted.watch,
            created_at=now(),
            updated_at=now(),
        )

    def _location(self, scope: Scope, wanted: NewSource) -> str:
        if wanted.kind == "folder":
            _, place = folder.allowed_root(scope, self._options.folders, wanted.location)
            if not place.is_dir():
                raise Invalid("There is no such folder.", code="bad_folder")
            return str(place)
        location = urls.normalised(self._outbound.check(wanted.location))
        if location is None:
            raise Invalid("This address can't be fetched: give a shorter http or https one.", code="bad_url")
        return location

    async def list(
        self, scope: Scope, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Source], str | None]:
        """Newest first, and the cursor of the next page."""
        limit = max(1, min(limit, MAX_PAGE))
        found = await self._database.read(store.page, scope, limit + 1, cursor)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def get(self, scope: Scope, source_id: str) -> Source:
        return await self._database.read(
            lambda session: store.shown(session, scope, store.get(session, scope, source_id))
        )

    async def items(
        self,
        scope: Scope,
        source_id: str,
        *,
        outcome: Outcome | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[Sequence[Item], str | None]:
        """What it brought, and what it left out and why."""
        limit = max(1, min(limit, MAX_PAGE))

        def find(session: Session) -> tuple[Sequence[Item], str | None]:
            return store.items(session, scope, source_id, outcome=outcome, limit=limit, cursor=cursor)

        return await self._database.read(find)

    async def update(
        self,
        scope: Scope,
        source_id: str,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        watch: bool | None = None,
        options: Options | None = None,
    ) -> Source:
        """Tags are those of documents that come from now on. With other options all pages are read again."""
        labels = None if tags is None else list(naming.tag_names(tags))
        bounds = None if options is None else asdict(_checked(options))

        def change(row: SourceRow) -> None:
            if watch and row.kind != "folder":
                raise Invalid("Only a folder can be watched; give a site or feed a schedule.", code="not_a_folder")
            row.name = _name(name or "") or row.name
            row.tags = row.tags if labels is None else labels
            row.watch = row.watch if watch is None else watch
            if bounds is not None:
                row.options, row.validators, row.fingerprint = bounds, {}, None

        source = await self._changed(scope, source_id, change)
        if bounds is not None:
            await self._database.write(store.read_anew, scope, source_id)
        return source

    async def _changed(self, scope: Scope, source_id: str, change: Callable[[SourceRow], Any]) -> Source:
        def write(session: Session) -> Source:
            row = store.get(session, scope, source_id)
            change(row)
            row.updated_at = now()
            session.flush()
            return store.shown(session, scope, row)

        return await self._database.write(write)

    async def delete(self, scope: Scope, source_id: str, *, documents: bool = False) -> None:
        """Remove it and its schedule; with `documents`, also those it brought."""
        source = await self.get(scope, source_id)
        if source.schedule_id is not None:
            await self._scheduling.stop(scope, source.schedule_id)

        def remove(session: Session) -> list[str]:
            row = store.get(session, scope, source_id)
            stopped = [row.job_id] if row.job_id and store.running(session, row) else []
            if documents:
                for each in session.exec(store.mine(scope, source_id).where(SourceItemRow.owned)).all():
                    stopped += self._keeper.release(session, scope, each)
            store.forget(session, scope, [source_id])
            return stopped

        for job_id in await self._database.write(remove):
            with suppress(Missing):
                await self._jobs.cancel(scope, job_id, everyone=True)
        await trash.empty(self._database, self._blobs, scope)

    async def run(self, scope: Scope, source_id: str, *, confirm: bool = False) -> str:
        """Look at it now; the job. While one runs already, that is it. `confirm` lets it take out more than half."""
        return await self._database.write(
            lambda session: self.start(session, scope, {"source_id": source_id, "confirm": confirm})
        )

    def start(self, session: Session, scope: Scope, payload: dict[str, Any]) -> str:
        """As `run`, inside a transaction: what a schedule starts. Raises Missing."""
        row = store.get(session, scope, str(payload.get("source_id", "")))
        if row.job_id is not None and store.running(session, row):
            return row.job_id
        wanted = {"source_id": row.id} | ({"confirm": True} if payload.get("confirm") else {})
        row.job_id = self._jobs.enqueue(session, scope, RUN, wanted)
        row.updated_at = now()
        session.flush()
        return row.job_id


def _name(given: str) -> str:
    return naming.tidy(given)[:MAX_NAME]


def _checked(options: Options) -> Options:
    if (options.depth is not None and options.depth < 0) or (options.pages is not None and options.pages < 1):
        raise Invalid("`depth` is 0 or more and `pages` 1 or more.", code="bad_bounds")
    return replace(options, include=patterns.checked(options.include), exclude=patterns.checked(options.exclude))
