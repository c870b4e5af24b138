"""The job that writes one message."""

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from terrace.campaigns.runs.base import WRITE, MessageState, Reason
from terrace.campaigns.runs.loading import Loaded, Loader
from terrace.campaigns.runs.purse import OverBudget, Purse, Purses
from terrace.campaigns.runs.steps import Ending, Spent, Steps, reserve, settle, tally_of
from terrace.campaigns.runs.writing import Writer, Written
from terrace.errors import Conflict, Denied, Missing, TerraceError
from terrace.jobs.base import Context, Done, Job, JobKind
from terrace.storage import Database
from terrace.types import Scope

TIMEOUT = 1800.0
MAX_CRASHES = 20  # a worker that dies with fifty messages dies of none of them
GONE = Reason("contact_deleted", "The contact was deleted before the message was written.")
STOPPED = Reason("stopped", "The job that wrote it was stopped.")


class Messages:
    """Writes messages: what the job kind's functions share."""

    def __init__(self, database: Database, loader: Loader, writer: Writer, steps: Steps) -> None:
        self._database = database
        self._loader = loader
        self._writer = writer
        self._steps = steps
        self._settling: set[asyncio.Task[Any]] = set()

    def kind(self) -> JobKind:
        return JobKind(
            WRITE, self.write, timeout=TIMEOUT, max_crashes=MAX_CRASHES, on_end=self.ended, on_retry=not_by_itself,
            shared=True, keep=self._steps.keep,
        )  # fmt: skip

    async def write(self, context: Context) -> Done | dict[str, Any]:
        """One attempt at one message. What a model answered is kept in the transaction that ends the job."""
        message_id = context.payload["message_id"]
        loaded = await self._loader.load(context.scope, message_id)
        if loaded is None or loaded.state != "writing" or loaded.job_id != context.job_id:
            return {"message_id": message_id, "state": "gone"}
        if loaded.reserved:  # an attempt died with it: what it had reserved may have been spent
            await context.write(
                lambda session: settle(session, context.scope, message_id, context.job_id, loaded.attempt)
            )
        if loaded.campaign_state != "running" and not context.payload.get("again"):
            return _done(Ending(message_id, "waiting"))
        if loaded.values is None:
            return _done(Ending(message_id, "skipped", error=GONE))
        purse = Purse(self._reserving(context, loaded) if loaded.budget is not None else None)
        try:
            with Purses.opened(purse):
                written = await self._write(context, loaded)
        except asyncio.CancelledError:
            self._settle_later(context, purse.spent)
            raise
        except Exception as error:
            if (reason := _stops(error)) is not None:
                # Who asked for this one again is told; the others wait for whoever mends it.
                state: MessageState = "failed" if context.payload.get("again") else "waiting"
                return _done(Ending(message_id, state, purse.spent, error=reason, pauses=state == "waiting"))
            await context.write(
                lambda session: settle(session, context.scope, message_id, context.job_id, context.attempt, purse.spent)
            )
            raise
        return _done(Ending(message_id, "done", purse.spent, written.text, written.sources, written.model))

    async def _write(self, context: Context, loaded: Loaded) -> Written:
        assert loaded.values is not None
        prepared = await self._writer.prepare(context.scope, loaded.brief, loaded.values)
        return await self._writer.write(context.scope, loaded.brief, prepared)

    def _reserving(self, context: Context, loaded: Loaded) -> Callable[[int], Any]:
        async def reserving(amount: int) -> bool:
            kept: bool = await context.write(
                lambda session: reserve(
                    session, context.scope, loaded.campaign_id, context.payload["message_id"], context.attempt, amount
                )
            )
            return kept

        return reserving

    def _settle_later(self, context: Context, spent: Spent) -> None:
        """It was cancelled: nothing can be awaited here, and what it had spent stays known all the same."""
        work = self._database.write(
            settle, context.scope, context.payload["message_id"], context.job_id, context.attempt, spent
        )
        task = asyncio.get_running_loop().create_task(_quietly(work))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def ended(self, session: Session, scope: Scope, job: Job) -> None:
        """The job failed for good, or was cancelled."""
        message_id = job.payload["message_id"]
        if job.state == "failed":
            error = job.error
            reason = Reason(error.code, error.message) if error else Reason("unknown", "No reason is known.")
            ending = Ending(message_id, "failed", None, error=reason)
        elif _cancelled(session, scope, job):
            ending = Ending(message_id, "waiting", None)
        else:
            ending = Ending(message_id, "failed", None, error=STOPPED)
        self._steps.end(session, scope, job.id, ending)


def _done(ending: Ending) -> Done:
    return Done({"message_id": ending.message_id, "state": ending.state}, kept=ending)


async def _quietly(work: Any) -> None:
    """What cannot be settled now stays reserved, and counts as spent: safe, and told by the doctor's sums."""
    try:
        await work
    except TerraceError:
        return


def not_by_itself(session: Session, scope: Scope, job: Job) -> None:
    """A campaign's jobs are not repeated one by one."""
    raise Conflict("Retry it at its campaign, which knows what it may cost.", code="retry_at_campaign")


def _cancelled(session: Session, scope: Scope, job: Job) -> bool:
    """Whether the whole campaign was."""
    found = session.execute(
        text("SELECT campaign_id FROM campaign_messages WHERE id = :id AND tenant_id = :tenant"),
        {"id": job.payload["message_id"], "tenant": scope.tenant},
    ).scalar()
    return found is not None and tally_of(session, scope, found)["state"] == "cancelled"


def _stops(error: Exception) -> Reason | None:
    """Why the whole campaign must wait: what one message met, all others would meet."""
    if isinstance(error, OverBudget | Denied | Missing) or getattr(error, "code", "") == "limit_reached":
        assert isinstance(error, TerraceError)
        return Reason(error.code, error.message)
    return None
