"""The job kind of the analysis room."""

from sqlmodel import Session

from terrace.analysis import store
from terrace.analysis.base import Notifier
from terrace.analysis.running import Running, Tools, tell
from terrace.errors import Conflict, Missing
from terrace.jobs.base import RESUMING_CRASHES, Context, Done, Job, JobKind
from terrace.types import Scope, now

RUN = "analysis.run"
TIMEOUT = 4 * 3600.0
MAX_FAILURES = 5  # of the job: one more than a call may fail, since drawing may fail beside


def kinds(tools: Tools) -> tuple[JobKind, ...]:
    """What assembly registers."""

    async def run(context: Context) -> Done:
        return await Running(context, tools).run()

    def on_end(session: Session, scope: Scope, job: Job) -> None:
        ended(session, scope, job, tools.notifier)

    kind = JobKind(
        RUN, run, timeout=TIMEOUT, max_failures=MAX_FAILURES, max_crashes=RESUMING_CRASHES, on_end=on_end,
        on_retry=again,
    )  # fmt: skip
    return (kind,)


def ended(session: Session, scope: Scope, job: Job, notifier: Notifier) -> None:
    """The job failed for good or was cancelled: the analysis says so too."""
    try:
        row = store.fenced(session, scope, str(job.payload.get("analysis_id", "")), job.id)
    except (Missing, Conflict):  # deleted, or another job's by now
        return
    row.state = "cancelled" if job.state == "cancelled" else "failed"
    row.error, row.finished_at = store.why(job), now()
    if row.state == "failed":
        tell(session, notifier, row)


def again(session: Session, scope: Scope, job: Job) -> None:
    """The job goes back in the queue. Raises Missing (deleted) or Conflict (superseded)."""
    store.rewind(session, store.fenced(session, scope, str(job.payload.get("analysis_id", "")), job.id))
