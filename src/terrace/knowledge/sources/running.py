"""The handler of `source.run`: one look at one source, and the report of it."""

from dataclasses import asdict, replace

from sqlmodel import Session, select

from terrace import settings
from terrace.errors import Conflict, Invalid, Limited
from terrace.jobs.base import RESUMING_CRASHES, Context, Done, Job, JobKind
from terrace.jobs.processes import Processes
from terrace.knowledge.sources import store
from terrace.knowledge.sources.base import RUN, Notes, Report
from terrace.knowledge.sources.feed_run import FeedRun
from terrace.knowledge.sources.fetching import Pace
from terrace.knowledge.sources.folder_run import SETTLED, FolderRun
from terrace.knowledge.sources.keeping import Keeper
from terrace.knowledge.sources.site_run import SiteRun
from terrace.knowledge.sources.tables import SourceRow
from terrace.knowledge.sources.visiting import Visitor
from terrace.outbound.base import Outbound
from terrace.storage import Database
from terrace.types import Scope, now

TIMEOUT = 24 * 3600.0  # seconds one attempt may take; the next goes on where it stopped


class Runner:
    def __init__(
        self,
        database: Database,
        processes: Processes,
        outbound: Outbound,
        keeper: Keeper,
        options: settings.Schedules,
        visitor: Visitor,
        pace: Pace | None = None,
        *,
        settled: float = SETTLED,
    ) -> None:
        self._database = database
        self._processes = processes
        self._outbound = outbound
        self._keeper = keeper
        self._options = options
        self._visitor = visitor
        self._pace = pace or Pace()
        self._settled = settled

    def kind(self) -> JobKind:
        """Shared: whoever may see the tenant's documents sees what brings them."""
        return JobKind(
            RUN, self.run, timeout=TIMEOUT, max_crashes=RESUMING_CRASHES, on_end=ended, on_retry=again, shared=True
        )

    async def run(self, context: Context) -> Done:
        source = await context.write(lambda session: _begin(session, context))
        run = self._of(source, context)
        try:
            await run.run()
        except Limited as error:
            if error.code != "limit_reached":  # of storage; others pass by themselves
                raise
            run.notes.say(f"It stopped early: {error.message}", incomplete=True)
        return await self._reported(context, source.id, run)

    def _of(self, source: SourceRow, context: Context) -> FolderRun | SiteRun | FeedRun:
        if source.kind == "folder":
            return FolderRun(self._database, self._keeper, context, source, self._options.folders, self._settled)
        kind = FeedRun if source.kind == "feed" else SiteRun
        return kind(
            self._database,
            self._processes,
            self._outbound,
            self._pace,
            self._visitor,
            self._keeper,
            context,
            source,
            self._options,
        )

    async def _reported(self, context: Context, source_id: str, run: FolderRun | SiteRun | FeedRun) -> Done:
        counts, failures = await self._database.read(store.outcomes, context.scope, source_id, context.job_id)
        report = _report(counts, run.notes, run.unchanged, run.failed)
        report = replace(report, failures=failures)

        def finish(session: Session) -> None:
            row = store.get(session, context.scope, source_id)
            row.report, row.ran_at, row.updated_at = asdict(report), now(), now()
            if isinstance(run, FolderRun):
                row.fingerprint = run.fingerprint
            if isinstance(run, FeedRun) and run.validators is not None:
                row.validators = asdict(run.validators)

        return Done({"source_id": source_id, **asdict(report)}, commit=finish)


def _begin(session: Session, context: Context) -> SourceRow:
    """The source, if this run may write for it. Raises Missing (removed) or Conflict (superseded)."""
    source_id = context.payload.get("source_id")
    if not isinstance(source_id, str):
        raise Invalid("The payload needs a source_id.", code="bad_payload")
    row = store.get(session, context.scope, source_id)
    if row.job_id != context.job_id:
        raise Conflict("A newer run looks at this source.", code="superseded")
    session.expunge(row)
    return row


def _report(counts: dict[str, int], notes: Notes, unchanged: int, failed: int) -> Report:
    return Report(
        added=counts.get("added", 0),
        changed=counts.get("changed", 0),
        unchanged=counts.get("unchanged", 0) + unchanged,
        removed=counts.get("removed", 0),
        failed=counts.get("failed", 0) + failed,
        skipped=counts.get("skipped", 0),
        complete=notes.complete,
        needs_confirm=notes.needs_confirm,
        notes=tuple(notes.told),
    )


def ended(session: Session, scope: Scope, job: Job) -> None:
    """The run failed for good or was cancelled: the source says so. What came in before stays."""
    row = _still(session, scope, job)
    if row is not None:
        counts, failures = store.outcomes(session, scope, row.id, job.id)
        why = job.error.message if job.error is not None and job.state == "failed" else "The run was cancelled."
        report = replace(_report(counts, Notes(complete=False), 0, 0), error=why, failures=failures)
        row.report, row.ran_at, row.updated_at = asdict(report), now(), now()


def again(session: Session, scope: Scope, job: Job) -> None:
    """A failed run may be repeated unless a newer one took its place."""
    if _still(session, scope, job) is None:
        raise Conflict("The source is gone, or a newer run looked at it.", code="superseded")


def _still(session: Session, scope: Scope, job: Job) -> SourceRow | None:
    query = select(SourceRow).where(
        SourceRow.tenant_id == scope.tenant,
        SourceRow.id == str(job.payload.get("source_id", "")),
        SourceRow.job_id == job.id,
    )
    return session.exec(query).one_or_none()
