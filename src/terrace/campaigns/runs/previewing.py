"""The job that writes a few messages of a campaign for somebody to look at, and says what the whole may cost."""

import asyncio
from dataclasses import asdict
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from terrace.campaigns.base import Contact
from terrace.campaigns.runs.base import PREVIEW, Choice, PriceList, Reason, Writers
from terrace.campaigns.runs.estimate import Sample, estimate
from terrace.campaigns.runs.loading import read_brief
from terrace.campaigns.runs.purse import Purse, Purses
from terrace.campaigns.runs.steps import Steps
from terrace.campaigns.runs.tables import CampaignRow
from terrace.campaigns.runs.tasks import not_by_itself
from terrace.campaigns.runs.writing import Brief, Prepared, Writer
from terrace.campaigns.templates.coverage import People, values_of
from terrace.campaigns.templates.language import LAST_CONVERSATION
from terrace.campaigns.templates.rendering import Values
from terrace.errors import TerraceError
from terrace.jobs.base import Context, Done, JobKind
from terrace.models.tokens import estimate_messages
from terrace.storage import Database
from terrace.telemetry.calls import PICODOLLARS
from terrace.types import Scope, now

MOST = 10
TIMEOUT = 900.0
URGENT = 50  # somebody looks at the page

RESERVE = text(
    "UPDATE campaigns SET preview_reserved = preview_reserved + :amount WHERE id = :id AND tenant_id = :tenant "
    "AND (budget IS NULL OR spent + reserved + preview_reserved + :amount <= budget)"
)
SETTLE = text(
    "UPDATE campaigns SET spent = spent + :cost, unpriced = unpriced + :unpriced, preview_reserved = 0, "
    "input_tokens = input_tokens + :input_tokens, output_tokens = output_tokens + :output_tokens "
    "WHERE id = :id AND tenant_id = :tenant"
)


class Previewing:
    def __init__(
        self, database: Database, people: People, writer: Writer, models: Writers, prices: PriceList, steps: Steps
    ) -> None:
        self._database = database
        self._people = people
        self._writer = writer
        self._models = models
        self._prices = prices
        self._steps = steps

    def kind(self) -> JobKind:
        return JobKind(PREVIEW, self.run, timeout=TIMEOUT, max_failures=1, on_retry=not_by_itself, shared=True)

    async def run(self, context: Context) -> Done:
        campaign_id, scope = context.payload["campaign_id"], context.scope
        brief, budget, people, values, total = await context.write(
            lambda session: self._begin(session, scope, campaign_id, context.payload["count"])
        )
        dry = bool(context.payload["dry"])
        free = brief.compiled.draft.mode == "fill"
        price = None if free else await self._price(scope, brief)
        reserving = None if budget is None else self._reserving(context, campaign_id)
        purses = [Purse(reserving) for _ in people]
        shown = await asyncio.gather(
            *(
                self._one(scope, brief, contact, value, None if dry else purse)
                for contact, value, purse in zip(people, values, purses, strict=True)
            )
        )
        samples = [sample for _, sample in shown if sample is not None]
        told = {
            "dry": dry,
            "messages": [message for message, _ in shown],
            "estimate": asdict(estimate(samples, total, price, free=free)),
            "at": now(),
        }

        def commit(session: Session) -> None:
            for purse in purses:
                session.execute(SETTLE, {"id": campaign_id, "tenant": scope.tenant, **asdict(purse.spent)})
            if (row := session.get(CampaignRow, campaign_id)) is not None:
                row.preview = told
                session.add(row)
            self._steps.told(session, campaign_id)

        return Done({"campaign_id": campaign_id, "messages": len(shown)}, commit)

    def _begin(
        self, session: Session, scope: Scope, campaign_id: str, count: int
    ) -> tuple[Brief, int | None, list[Contact], list[Values], int]:
        """What a preview that died had reserved counts as spent."""
        brief = read_brief(session, scope, campaign_id)
        row = session.get(CampaignRow, campaign_id)
        assert row is not None
        row.spent, row.preview_reserved = row.spent + row.preview_reserved, 0
        session.add(row)
        session.flush()
        people = self._people.page(session, scope, row.list_id, None, min(count, MOST))
        said = LAST_CONVERSATION in brief.compiled.names
        values = [
            Values(values_of(each), (), (self._people.last_conversation(session, scope, each.id) or "") if said else "")
            for each in people
        ]
        return brief, row.budget, people, values, self._people.count(session, scope, row.list_id)

    async def _one(
        self, scope: Scope, brief: Brief, contact: Contact, values: Values, purse: Purse | None
    ) -> tuple[dict[str, Any], Sample | None]:
        """What is shown of one message; a failure is shown, not raised."""
        told: dict[str, Any] = {
            "contact": {"id": contact.id, "key": contact.key, "name": contact.name, "email": contact.email},
            "prompt": None, "text": None, "sources": [], "model": None, "error": None, "cost": 0.0, "unpriced": 0,
        }  # fmt: skip
        sample: Sample | None = None
        with Purses.opened(purse or Purse()):
            try:
                prepared = await self._writer.prepare(scope, brief, values)
                sample = _sample(brief, prepared, None)
                told["prompt"] = prepared.text
                if purse is not None or prepared.request is None:
                    written = await self._writer.write(scope, brief, prepared)
                    told |= {"text": written.text, "sources": written.sources, "model": written.model}
                    sample = _sample(brief, prepared, purse)
            except TerraceError as error:
                told["error"] = asdict(Reason(error.code, error.message))
        if purse is not None:
            told |= {"cost": purse.spent.cost / PICODOLLARS, "unpriced": purse.spent.unpriced}
        return told, sample

    async def _price(self, scope: Scope, brief: Brief) -> Any:
        choice: Choice = await self._models.resolve(brief.model, scope)
        return self._prices.of(choice.kind, choice.provider.name, choice.model)

    def _reserving(self, context: Context, campaign_id: str) -> Any:
        async def reserving(amount: int) -> bool:
            where = {"id": campaign_id, "tenant": context.scope.tenant, "amount": amount}
            return bool(await context.write(lambda session: session.execute(RESERVE, where).rowcount))  # type: ignore[attr-defined]

        return reserving


def _sample(brief: Brief, prepared: Prepared, purse: Purse | None) -> Sample:
    asked = 0 if prepared.request is None else estimate_messages(prepared.request.messages)
    spent = None if purse is None or prepared.request is None else purse.spent.cost
    return Sample(asked, brief.options.max_tokens, spent)
