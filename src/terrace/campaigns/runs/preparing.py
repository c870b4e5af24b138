"""The job that begins a campaign, or a further stretch of it: checks, a row for each contact, the first window."""

from functools import partial
from typing import Any

import msgspec
from sqlalchemy import String, bindparam, insert, text
from sqlmodel import Session

from terrace.campaigns.base import Contact
from terrace.campaigns.runs.base import OVER, RUN, Options, Reason
from terrace.campaigns.runs.steps import Steps, tally_of
from terrace.campaigns.runs.tables import CampaignRow, MessageRow
from terrace.campaigns.runs.tasks import not_by_itself
from terrace.campaigns.templates import service as templates
from terrace.campaigns.templates.coverage import Coverage, People, Placeholder, examine, required, values_of
from terrace.campaigns.templates.drafts import Compiled
from terrace.campaigns.templates.language import CONTACT, LAST_CONVERSATION
from terrace.errors import Invalid, Missing
from terrace.jobs.base import RESUMING_CRASHES, Context, Done, Job, JobKind
from terrace.storage import Database, in_bulk
from terrace.types import Scope, new_id, now

PAGE = 100  # rows made in one transaction, some 10 ms: others write in between
TIMEOUT = 6 * 3600.0

KNOWN = text("SELECT contact_id FROM campaign_messages WHERE campaign_id = :id AND contact_id IN :ids").bindparams(
    bindparam("ids", expanding=True, type_=String)
)
REACHED = text(
    "UPDATE campaigns SET reached = :reached, total = total + :added, skipped = skipped + :skipped, "
    "seq = seq + :skipped, updated_at = :now WHERE id = :id RETURNING seq"
)
BEGIN = text(
    "UPDATE campaigns SET state = 'running', prepared = :yes, reason = NULL, started_at = COALESCE(started_at, :now), "
    "updated_at = :now WHERE id = :id"
)


class Preparing:
    def __init__(self, database: Database, people: People, steps: Steps) -> None:
        self._database = database
        self._people = people
        self._steps = steps

    def kind(self) -> JobKind:
        return JobKind(
            RUN, self.run, timeout=TIMEOUT, max_crashes=RESUMING_CRASHES, on_end=self.ended, on_retry=not_by_itself,
            shared=True, concludes=True,
        )  # fmt: skip

    async def run(self, context: Context) -> Done | dict[str, Any]:
        campaign_id, scope = context.payload["campaign_id"], context.scope
        if not await context.write(lambda session: _take_up(session, scope, campaign_id, context.job_id)):
            return {"campaign_id": campaign_id, "begun": False}
        if not await self._database.read(_prepared, scope, campaign_id):
            await self._database.read(self.check, scope, campaign_id)
            page = in_bulk(partial(self._page, scope=scope, campaign_id=campaign_id, job_id=context.job_id))
            while await context.write(page):
                pass
        return Done(
            {"campaign_id": campaign_id}, lambda session: self._begin(session, scope, campaign_id, context.job_id)
        )

    def check(self, session: Session, scope: Scope, campaign_id: str) -> Coverage:
        """Every placeholder against every contact. Raises Invalid, Missing."""
        row = session.get(CampaignRow, campaign_id)
        assert row is not None
        compiled = templates.compiled(session, scope, row.template_id, row.template_version)
        coverage = examine(session, scope, self._people, row.list_id, compiled)
        if not coverage.contacts:
            raise Invalid("There is nobody in this list. Import contacts first.", code="list_empty")
        if coverage.missing and Options(**(row.options or {})).incomplete == "refuse":
            raise Invalid(
                f"{_sentence(coverage.missing[0], coverage.contacts)} Give it a default in the template, fill in the "
                "contacts, or have those skipped (`incomplete: skip`).",
                code="values_missing",
                placeholders=msgspec.to_builtins(coverage.missing),
            )
        return coverage

    def ended(self, session: Session, scope: Scope, job: Job) -> None:
        """It failed, or was cancelled: then so is the campaign."""
        row = _row(session, scope, job.payload["campaign_id"])
        if row is None or row.job_id != job.id or row.state in OVER:
            return
        error = Reason(job.error.code, job.error.message) if job.error and job.state == "failed" else None
        row.state = "failed" if job.state == "failed" else "cancelled"
        row.reason = None if error is None else msgspec.json.encode(error).decode()
        row.finished_at = row.updated_at = now()
        session.add(row)
        self._steps.told(session, row.id)

    def _page(self, session: Session, scope: Scope, campaign_id: str, job_id: str) -> bool:
        """Rows for the next contacts; whether there may be more."""
        row = _row(session, scope, campaign_id)
        if row is None or row.state != "preparing" or row.job_id != job_id:
            return False
        page = self._people.page(session, scope, row.list_id, row.reached, PAGE)
        known = set(session.execute(KNOWN, {"id": row.id, "ids": [each.id for each in page]}).scalars())
        compiled = templates.compiled(session, scope, row.template_id, row.template_version)
        people = [each for each in page if each.id not in known]
        ids = sorted(new_id("cms") for _ in people)  # messages stand in the order of the contacts
        fresh = [
            _fresh(session, scope, self._people, row, each, compiled) | {"id": id}
            for id, each in zip(ids, people, strict=True)
        ]
        skipped = [each for each in fresh if each["state"] == "skipped"]
        if page:
            values = {"id": row.id, "reached": page[-1].id, "added": len(fresh), "skipped": len(skipped), "now": now()}
            last = session.execute(REACHED, values).scalar_one()
            for place, each in enumerate(skipped):
                each["seq"] = last - len(skipped) + 1 + place
        if fresh:
            session.execute(insert(MessageRow), fresh)
        self._steps.told(session, row.id)
        return len(page) == PAGE

    def _begin(self, session: Session, scope: Scope, campaign_id: str, job_id: str) -> None:
        row = _row(session, scope, campaign_id)
        if row is None or row.job_id != job_id or row.state not in ("preparing", "running"):
            return
        session.execute(BEGIN, {"id": campaign_id, "yes": True, "now": now()})
        self._steps.feed(session, tally_of(session, scope, campaign_id))


def _take_up(session: Session, scope: Scope, campaign_id: str, job_id: str) -> bool:
    """Whether this job is to begin the campaign: its time has come, and nobody stopped it."""
    row = _row(session, scope, campaign_id)
    if row is None or row.job_id != job_id:
        return False
    if row.state == "scheduled":
        row.state, row.updated_at = "preparing", now()
        session.add(row)
    return row.state in ("preparing", "running")


def _prepared(session: Session, scope: Scope, campaign_id: str) -> bool:
    row = _row(session, scope, campaign_id)
    if row is None:
        raise Missing("The campaign was deleted.", code="campaign_missing")
    return row.prepared


def _row(session: Session, scope: Scope, campaign_id: str) -> CampaignRow | None:
    row = session.get(CampaignRow, campaign_id)
    return row if row is not None and row.tenant_id == scope.tenant else None


def _fresh(
    session: Session, scope: Scope, people: People, campaign: CampaignRow, contact: Contact, compiled: Compiled
) -> dict[str, Any]:
    lacking = _lacking(session, scope, people, contact, compiled)
    error = None
    if lacking:
        names = ", ".join(f"`{name.removeprefix(CONTACT)}`" for name in sorted(lacking))
        error = msgspec.json.encode(Reason("value_missing", f"This contact has no {names}.")).decode()
    return {
        "tenant_id": scope.tenant,
        "campaign_id": campaign.id,
        "contact_id": contact.id,
        "state": "skipped" if lacking else "waiting",
        "error": error,
        "seq": None,
        "finished_at": now() if lacking else None,
        "cost": 0, "reserved": 0, "attempt": 0, "unpriced": 0, "input_tokens": 0, "output_tokens": 0,
    }  # fmt: skip


def _lacking(session: Session, scope: Scope, people: People, contact: Contact, compiled: Compiled) -> frozenset[str]:
    needed = required(compiled)
    lacking = needed - {CONTACT + name for name in values_of(contact)}
    if LAST_CONVERSATION in lacking and people.last_conversation(session, scope, contact.id):
        lacking -= {LAST_CONVERSATION}
    return lacking


def _sentence(placeholder: Placeholder, contacts: int) -> str:
    examples = ", ".join(each.name or each.key for each in placeholder.examples[:3])
    of = f", such as {examples}" if examples else ""
    return f"{placeholder.lacking:,} of {contacts:,} contacts have no `{placeholder.name}`{of}."
