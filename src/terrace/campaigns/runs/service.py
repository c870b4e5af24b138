"""Campaigns as the doors see them."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from sqlalchemy import text
from sqlmodel import Session

from terrace import settings
from terrace.campaigns.contacts import store as contacts
from terrace.campaigns.runs import making, store
from terrace.campaigns.runs.base import (
    PREVIEW,
    RUN,
    Campaign,
    Event,
    Message,
    PriceList,
    Wanted,
    Writers,
)
from terrace.campaigns.runs.feed import Feed
from terrace.campaigns.runs.outbox import Outbox, check_limit
from terrace.campaigns.runs.preparing import Preparing
from terrace.campaigns.runs.previewing import MOST, URGENT
from terrace.campaigns.runs.steps import Steps, scope_of, tally_of
from terrace.campaigns.runs.tables import CampaignRow
from terrace.campaigns.templates import service as templates
from terrace.campaigns.templates.coverage import Coverage, People, examine
from terrace.campaigns.templates.drafts import compile
from terrace.errors import Conflict, Invalid, Missing
from terrace.jobs.base import FINAL, Job
from terrace.models.walls import denied, permits
from terrace.storage import Database
from terrace.types import Scope, now

DROPPED = 2000  # messages removed in one transaction

WAIT_AGAIN = text(
    "UPDATE campaign_messages SET state = 'waiting', error = NULL, job_id = NULL, seq = NULL, finished_at = NULL "
    "WHERE campaign_id = :id AND state = 'failed'"
)
DROP = text(
    "DELETE FROM campaign_messages WHERE id IN "
    f"(SELECT id FROM campaign_messages WHERE campaign_id = :id LIMIT {DROPPED})"
)


class Queue(Protocol):
    """Jobs: `terrace.jobs.base.Jobs`, as far as campaigns begin, stop and await them."""

    def enqueue(
        self,
        session: Session,
        scope: Scope,
        kind: str,
        payload: dict[str, Any],
        *,
        priority: int = 0,
        delay: float = 0.0,
        idempotency_key: str | None = None,
        parent_id: str | None = None,
    ) -> str: ...

    async def get(self, scope: Scope, job_id: str, *, everyone: bool = False) -> Job: ...
    async def cancel(self, scope: Scope, job_id: str, *, everyone: bool = False) -> Job: ...
    async def wait(self, scope: Scope, job_id: str, timeout: float | None = None, *, everyone: bool = False) -> Job: ...


class Campaigns(Outbox):
    """Campaigns, and their messages as `Outbox` has them."""

    def __init__(
        self,
        database: Database,
        jobs: Queue,
        models: Writers,
        prices: PriceList,
        people: People,
        options: settings.Campaigns,
        steps: Steps,
        preparing: Preparing,
        feed: Feed,
        check_webhook: Callable[[str], str] = str,
    ) -> None:
        super().__init__(database, steps)
        self._jobs = jobs
        self._models = models
        self._prices = prices
        self._people = people
        self._options = options
        self._preparing = preparing
        self._feed = feed
        self._check_webhook = check_webhook

    # -- making

    async def create(self, scope: Scope, wanted: Wanted, key: str | None = None) -> Campaign:
        """A draft. The same idempotency key gives the campaign it made.

        Raises Invalid, Missing (list, template, model), Denied (a model they may not use), Conflict.
        """
        making.check(wanted, self._options)
        if wanted.webhook:
            wanted = replace(wanted, webhook=self._check_webhook(wanted.webhook))
        model = await self._model(scope, wanted.model, wanted.budget)

        def work(session: Session) -> Campaign:
            return store.told(session, making.create(session, scope, wanted, model, self._options, key))

        return await self._database.write(work)

    async def change(self, scope: Scope, campaign_id: str, changes: dict[str, Any]) -> Campaign:
        """Anything of a draft; later the name, the concurrency, and, while nothing is written, the budget, which may
        be raised at any time. Raises Missing, Invalid, Conflict."""
        row = await self._admitted(scope, campaign_id, changes.get("model"))
        if "model" in changes or changes.get("budget") is not None:
            model = changes.get("model", row.model)
            named = await self._model(scope, model, changes.get("budget"), row.mode)
            changes = {**changes, **({"model": named} if "model" in changes else {})}
        if changes.get("webhook"):
            changes = {**changes, "webhook": self._check_webhook(changes["webhook"])}
        return await self._database.write(self._change, scope, campaign_id, changes)

    async def get(self, scope: Scope, campaign_id: str) -> Campaign:
        """Raises Missing."""
        return await self._database.read(store.get, scope, campaign_id)

    async def list(
        self, scope: Scope, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Campaign], str | None]:
        """Newest first, and the cursor of the next page."""
        check_limit(limit)
        return await self._database.read(store.page, scope, limit, cursor)

    async def delete(self, scope: Scope, campaign_id: str) -> None:
        """With its messages. Raises Missing, Conflict while it runs."""

        def close(session: Session) -> None:
            row = store.find(session, scope, campaign_id)
            if row.state in ("preparing", "running", "scheduled") or row.writing:
                raise Conflict("Cancel the campaign before you delete it.", code="campaign_running")
            row.state = "cancelled"
            session.add(row)

        await self._database.write(close)
        while await self._database.write(lambda session: session.execute(DROP, {"id": campaign_id}).rowcount):  # type: ignore[attr-defined]
            continue
        await self._database.write(lambda session: session.delete(store.find(session, scope, campaign_id)))

    # -- looking at it before

    async def coverage(self, scope: Scope, campaign_id: str) -> Coverage:
        """Which contacts lack what the template asks for. Raises Missing."""

        def work(session: Session) -> Coverage:
            row = store.find(session, scope, campaign_id)
            compiled = templates.compiled(session, scope, row.template_id, row.template_version)
            return examine(session, scope, self._people, row.list_id, compiled)

        return await self._database.read(work)

    async def draft_coverage(self, scope: Scope, draft: Any, list_id: str) -> Coverage:
        """As `coverage`, of a template that is not kept. Raises Invalid (BadTemplate), Missing."""
        compiled = compile(draft)

        def work(session: Session) -> Coverage:
            found = contacts.get_list(session, scope, list_id)
            return examine(session, scope, self._people, found.id, compiled)

        return await self._database.read(work)

    async def preview(self, scope: Scope, campaign_id: str, *, count: int = 5, dry: bool = False) -> str:
        """The job that writes a few messages (`dry`: asks no model); its campaign then shows them. Raises Missing,
        Invalid, Conflict."""
        if not 1 <= count <= MOST:
            raise Invalid(f"A preview shows 1 to {MOST} messages.", code="bad_count")
        running = (await self._admitted(scope, campaign_id)).preview_job
        if running is not None:
            try:
                job = await self._jobs.get(scope, running, everyone=True)
            except Missing:
                pass  # removed after its time
            else:
                if job.state not in FINAL:
                    raise Conflict("A preview is being written. Wait for it.", code="preview_running")

        def work(session: Session) -> str:
            row = store.find(session, scope, campaign_id)
            if row.preview_job != running:
                raise Conflict("A preview is being written. Wait for it.", code="preview_running")
            payload = {"campaign_id": row.id, "count": count, "dry": dry}
            job_id = self._jobs.enqueue(session, scope, PREVIEW, payload, priority=URGENT)
            row.preview_job = job_id
            session.add(row)
            return job_id

        return await self._database.write(work)

    async def previewed(self, scope: Scope, campaign_id: str, job_id: str, timeout: float) -> tuple[Campaign, Job]:
        """After the preview's end. Raises TimeoutError when it takes longer."""
        job = await self._jobs.wait(scope, job_id, timeout, everyone=True)
        return await self.get(scope, campaign_id), job

    # -- going

    async def start(self, scope: Scope, campaign_id: str) -> Campaign:
        """Every placeholder is checked, then a message for each contact is written; at `start_at` if there is one.
        A campaign that was started stays as it is. Raises Missing, Invalid (`values_missing`), Conflict."""
        row = await self._admitted(scope, campaign_id)
        if row.state in ("draft", "failed"):
            await self._database.read(self._preparing.check, scope, campaign_id)
        return await self._database.write(lambda session: self.begin(session, scope, campaign_id)[0])

    def begin(self, session: Session, scope: Scope, campaign_id: str) -> tuple[Campaign, str]:
        """`start` inside a transaction, for schedules too: its job checks. (campaign, its job's id)"""
        row = store.find(session, scope, campaign_id)
        if row.state == "cancelled":
            raise Conflict("This campaign was cancelled. Make a new one.", code="campaign_over")
        if row.state in ("draft", "failed"):
            later = max(0.0, (row.start_at or 0.0) - now())
            row.state, row.reason, row.finished_at = ("scheduled" if later else "preparing"), None, None
            self._run(session, row, later)
        assert row.job_id is not None
        return store.told(session, row), row.job_id

    async def pause(self, scope: Scope, campaign_id: str) -> Campaign:
        """Nothing new begins; what is being written is finished. Raises Missing, Conflict."""

        def work(session: Session) -> Campaign:
            row = store.find(session, scope, campaign_id)
            if row.state in ("running", "preparing"):
                session.expire_all()
                self._steps.feed(session, self._steps.pause(session, tally_of(session, scope, campaign_id), None))
            elif row.state != "paused":
                raise Conflict(f"Only a running campaign can be paused; this one is {row.state}.", code="not_running")
            return store.get(session, scope, campaign_id)

        return await self._database.write(work)

    async def resume(self, scope: Scope, campaign_id: str) -> Campaign:
        """Go on where it was paused. Raises Missing, Denied, Conflict."""
        await self._admitted(scope, campaign_id)

        def work(session: Session) -> Campaign:
            row = store.find(session, scope, campaign_id)
            if row.state == "paused":
                self._go_on(session, row)
            elif row.state not in ("running", "preparing"):
                raise Conflict(f"Only a paused campaign can be resumed; this one is {row.state}.", code="not_paused")
            return store.get(session, scope, campaign_id)

        return await self._database.write(work)

    async def cancel(self, scope: Scope, campaign_id: str) -> Campaign:
        """Stop for good; what is being written is broken off, what is written stays. Raises Missing, Conflict."""

        def work(session: Session) -> str | None:
            row = store.find(session, scope, campaign_id)
            if row.state in ("draft", "finished", "failed"):
                raise Conflict(f"There is nothing to cancel: this campaign is {row.state}.", code="not_running")
            if row.state != "cancelled":
                row.state, row.reason = "cancelled", None
                row.finished_at = row.updated_at = now()
                session.add(row)
                self._steps.told(session, row.id)
            return row.job_id

        job_id = await self._database.write(work)
        if job_id is not None:
            with suppress(Missing):  # it ended long ago
                await self._jobs.cancel(scope, job_id, everyone=True)
        return await self.get(scope, campaign_id)

    async def retry(self, scope: Scope, campaign_id: str) -> Campaign:
        """The failed messages again. Raises Missing, Denied, Conflict."""
        await self._admitted(scope, campaign_id)

        def work(session: Session) -> Campaign:
            row = store.find(session, scope, campaign_id)
            if row.state not in ("finished", "paused", "running"):
                raise Conflict(f"This campaign is {row.state}; there is nothing to retry.", code="not_running")
            again = session.execute(WAIT_AGAIN, {"id": row.id}).rowcount  # type: ignore[attr-defined]
            row.failed, row.in_row = row.failed - again, 0
            if again and row.state in ("finished", "paused"):
                self._go_on(session, row)
            session.add(row)
            session.flush()
            return store.told(session, row)

        return await self._database.write(work)

    async def regenerate(self, scope: Scope, campaign_id: str, message_id: str) -> Message:
        """As `Outbox`. Raises Denied, too."""
        await self._admitted(scope, campaign_id)
        return await super().regenerate(scope, campaign_id, message_id)

    def events(self, scope: Scope, campaign_id: str, after: int = 0) -> AsyncIterator[Event]:
        """What ended after the message `after`, then as it comes, with progress; ends when the campaign is over.
        Raises Missing at the first step."""
        return self._feed.follow(scope, campaign_id, after)

    # -- within

    def check_start(self, session: Session, scope: Scope, campaign_id: str) -> None:
        """Whether the caller may have it started later, when nobody asks who they were. Raises Missing, Denied."""
        row = store.find(session, scope, campaign_id)
        if row.mode == "write" and not permits(scope, row.model):
            raise denied(scope, row.model)

    async def _admitted(self, scope: Scope, campaign_id: str, instead: str | None = None) -> CampaignRow:
        """A campaign that others made is no way to a model that the caller may not use. Raises Missing, Denied."""
        row = await self._database.read(store.find, scope, campaign_id)
        if scope.models and row.mode == "write" and instead is None:
            await self._models.resolve(row.model, scope)
        return row

    async def _model(self, scope: Scope, model: str | None, budget: float | None, mode: str = "write") -> str:
        choice = await self._models.resolve(model, scope)
        price = self._prices.of(choice.kind, choice.provider.name, choice.model)
        making.check_price(price, choice if mode == "write" else None, budget)
        return choice.id

    def _change(self, session: Session, scope: Scope, campaign_id: str, changes: dict[str, Any]) -> Campaign:
        row = store.find(session, scope, campaign_id)
        late = set(changes) - {"name", "concurrency", "budget"}
        if late and row.state not in ("draft", "failed"):
            raise Conflict(
                f"After the start only name, concurrency and budget can be changed, not {', '.join(sorted(late))}.",
                code="campaign_started",
            )
        making.change(session, scope, row, changes)
        session.add(row)
        session.flush()
        self._steps.told(session, row.id)
        return store.told(session, row)

    def _run(self, session: Session, row: CampaignRow, delay: float = 0.0) -> None:
        row.job_id = self._jobs.enqueue(session, scope_of(_payer(row)), RUN, {"campaign_id": row.id}, delay=delay)
        row.updated_at = now()
        session.add(row)
        session.flush()
        self._steps.told(session, row.id)

    def _go_on(self, session: Session, row: CampaignRow) -> None:
        row.state, row.reason, row.finished_at, row.in_row = (
            "running" if row.prepared else "preparing",
            None,
            None,
            0,
        )
        if not row.writing:  # the stretch is over: a new one begins
            self._run(session, row)
            return
        session.add(row)
        session.flush()
        session.expire_all()
        self._steps.feed(session, tally_of(session, scope_of(_payer(row)), row.id))


list_ = list


def _payer(row: CampaignRow) -> dict[str, Any]:
    return {"tenant_id": row.tenant_id, "user_id": row.user_id, "key_id": row.key_id}
