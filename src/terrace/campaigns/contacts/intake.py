"""How a table's people come in, whatever the table is: looked at without writing, or brought in by a job."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from terrace import settings
from terrace.campaigns.contacts import merging, store
from terrace.campaigns.contacts.reading.base import Bounds, Plan, Problem, Summary
from terrace.campaigns.contacts.reading.collecting import groups
from terrace.campaigns.contacts.tables import ImportRow
from terrace.errors import Conflict, Missing
from terrace.jobs.base import Context, Done, Job
from terrace.jobs.processes import OnProgress
from terrace.knowledge import trash
from terrace.knowledge.tables import TrashRow
from terrace.storage import Blobs, Database, after_commit
from terrace.types import Scope, new_id, now

MEMORY = 1536 * 1024**2  # bytes of address space for reading a table

Read = Callable[[Path, OnProgress | None], Awaitable[Summary]]
"""Reads a table and leaves its people in groups in the file named. Raises Invalid."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What an import would do."""

    columns: list[str]
    mapping: dict[str, str]  # column -> field, empty where it is left out
    sample: list[dict[str, str]]
    rows: int  # with something in them
    new: int
    changed: int
    unchanged: int
    repeated: int
    invalid: int
    problems: list[Problem]
    notes: list[str]


class Intake:
    def __init__(self, database: Database, blobs: Blobs, options: settings.Campaigns) -> None:
        self._database = database
        self._blobs = blobs
        self._options = options
        self._emptying: set[asyncio.Task[int]] = set()

    def plan(self, mapping: Mapping[str, str], *, encoding: str = "", delimiter: str = "", sheet: str = "") -> Plan:
        options = self._options
        bounds = Bounds(options.max_import_rows, options.max_fields, options.max_field_chars)
        return Plan(dict(mapping), encoding, delimiter, sheet, bounds)

    # -- without writing

    async def examine(self, scope: Scope, read: Read) -> Examined:
        async with _gathered(read, None) as (summary, file):
            counts = dict.fromkeys(merging.COUNTED, 0)
            at = groups(file)
            while group := await asyncio.to_thread(next, at, None):
                _add(counts, await self._database.read(merging.compare, scope, group))
        return Examined(
            columns=summary.columns,
            mapping=summary.mapping,
            sample=summary.sample,
            rows=summary.rows,
            repeated=summary.repeated,
            invalid=summary.invalid,
            problems=summary.problems,
            notes=summary.notes,
            **counts,
        )

    # -- as a job

    def begin(
        self, session: Session, scope: Scope, list_id: str, *, name: str, blob: str, plan: Plan, **options: Any
    ) -> ImportRow:
        """The import's row, and its list when there is none yet."""
        row = ImportRow(
            id=new_id("imp"),
            tenant_id=scope.tenant,
            list_id=store.ensure_list(session, scope, list_id).id,
            blob=blob,
            name=name,
            mapping=dict(plan.mapping),
            options={"encoding": plan.encoding, "delimiter": plan.delimiter, "sheet": plan.sheet, **options},
            counts=dict.fromkeys(merging.COUNTED, 0),
            created_at=now(),
        )
        session.add(row)
        session.flush()
        return row

    async def find(self, ctx: Context, *, anew: bool = False) -> ImportRow:
        """`anew`: an attempt before this one counts for nothing. Raises Missing when it is over, or its tenant gone."""
        import_id = str(ctx.payload["import_id"])
        found = await self._database.read(_find, ctx.scope, import_id)
        if found is not None and anew and found.groups:
            found = await ctx.write(partial(_reset, scope=ctx.scope, import_id=import_id))
        if found is None:
            raise Missing("This import is over. Begin another.", code="import_missing")
        return found

    async def bring(self, ctx: Context, row: ImportRow, read: Read) -> Done:
        """Every good row, in groups that are written whole; an attempt goes on where the last one ended."""

        def reading(done: float, _total: float, _note: str = "") -> None:
            ctx.progress(0, 1, f"{done:,.0f} rows read")

        async with _gathered(read, reading) as (summary, file):
            room = self._options.max_contacts - await self._database.read(store.count, ctx.scope, None)
            counts, written = dict(row.counts), row.groups
            at = groups(file, skip=written)
            while group := await asyncio.to_thread(next, at, None):
                counts = await ctx.write(partial(self._step, scope=ctx.scope, row=row, group=group, room=room))
                written += 1
                room -= counts.pop("added")
                done = min(summary.good, round(summary.good * written / summary.groups))
                ctx.progress(done, summary.good, f"{done:,} of {summary.good:,} contacts are in")
        if row.options.get("begun_again"):
            summary.notes.append("It was stopped and begun again: contacts that were in by then count as unchanged.")
        told = asdict(summary) | counts | {"list_id": row.list_id, "name": row.name}
        for unneeded in ("groups", "sample", "good"):
            told.pop(unneeded)
        return Done(told, commit=lambda session: self._discard(session, ctx.scope, row.id))

    def _step(self, session: Session, scope: Scope, row: ImportRow, group: bytes, room: int) -> dict[str, int]:
        """A group, and how far that is: in one transaction."""
        kept = _find(session, scope, row.id)
        if kept is None:
            raise Missing("This import is over. Begin another.", code="import_missing")
        store.get_list(session, scope, row.list_id)  # deleted meanwhile: nobody wants the rest
        counted = merging.merge(
            session, scope, row.list_id, group, most_fields=self._options.max_fields, room=max(0, room)
        )
        kept.counts = {name: kept.counts[name] + counted[name] for name in merging.COUNTED}
        kept.groups += 1
        session.add(kept)
        session.flush()
        return {**kept.counts, "added": counted["new"]}

    # -- its end

    def ended(self, session: Session, scope: Scope, job: Job) -> None:
        """Failed or cancelled: what is in stays, the file goes."""
        self._discard(session, scope, str(job.payload["import_id"]))

    def again(self, session: Session, scope: Scope, job: Job) -> None:
        """Raises Conflict: there is nothing left to begin with."""
        if _find(session, scope, str(job.payload["import_id"])) is None:
            raise Conflict("What this import read is gone. Import it again: who is in already stays.", code="gone")

    def _discard(self, session: Session, scope: Scope, import_id: str) -> None:
        row = _find(session, scope, import_id)
        if row is None:
            return
        if row.blob:
            session.add(TrashRow(key=row.blob, tenant_id=scope.tenant, created_at=now()))
            after_commit(session, lambda: self._empty(scope))
        session.delete(row)

    def erase_tenant(self, session: Session, scope: Scope) -> None:
        """What is under way: the files go with the rows."""
        mine = select(ImportRow.id).where(col(ImportRow.tenant_id) == scope.tenant)
        for import_id in session.exec(mine).all():
            self._discard(session, scope, import_id)
        session.flush()

    def _empty(self, scope: Scope) -> None:
        """What is not gone when we stop, the next start removes."""
        task = asyncio.get_running_loop().create_task(trash.empty(self._database, self._blobs, scope))
        self._emptying.add(task)
        task.add_done_callback(self._emptying.discard)


@asynccontextmanager
async def _gathered(read: Read, progress: OnProgress | None) -> AsyncGenerator[tuple[Summary, Path], None]:
    with tempfile.TemporaryDirectory(prefix="terrace-import-") as folder:
        file = Path(folder, "people")
        yield await read(file, progress), file


def _find(session: Session, scope: Scope, import_id: str) -> ImportRow | None:
    return session.exec(
        select(ImportRow).where(ImportRow.id == import_id, ImportRow.tenant_id == scope.tenant)
    ).one_or_none()


def _reset(session: Session, scope: Scope, import_id: str) -> ImportRow | None:
    row = _find(session, scope, import_id)
    if row is not None:
        row.groups, row.counts = 0, dict.fromkeys(merging.COUNTED, 0)
        row.options = {**row.options, "begun_again": True}
        session.add(row)
        session.flush()
    return row


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        counts[name] += number
