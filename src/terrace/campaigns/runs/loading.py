"""What a message is written from, read for many messages at once: jobs begin by the dozen."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import RowMapping, String, bindparam, text
from sqlmodel import Session

from terrace.campaigns.runs.base import Options
from terrace.campaigns.runs.tables import CampaignRow
from terrace.campaigns.runs.writing import Brief
from terrace.campaigns.templates import service as templates
from terrace.campaigns.templates.coverage import People
from terrace.campaigns.templates.language import LAST_CONVERSATION
from terrace.campaigns.templates.rendering import Values
from terrace.errors import Missing
from terrace.storage import Database
from terrace.types import Scope

BRIEFS = 200  # campaigns remembered

MESSAGES = text(
    "SELECT m.id, m.campaign_id, m.contact_id, m.state, m.job_id, m.reserved, m.attempt, c.id AS person, c.key, "
    "c.name, c.email, c.fields FROM campaign_messages AS m "
    "LEFT JOIN contacts AS c ON c.id = m.contact_id AND c.tenant_id = m.tenant_id "
    "WHERE m.tenant_id = :tenant AND m.id IN :ids"
).bindparams(bindparam("ids", expanding=True, type_=String))
CAMPAIGNS = text("SELECT id, state, budget FROM campaigns WHERE tenant_id = :tenant AND id IN :ids").bindparams(
    bindparam("ids", expanding=True, type_=String)
)

_fields = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True)
class Loaded:
    """A message about to be written. `values` None: the contact is gone."""

    campaign_id: str
    state: str  # of the message
    job_id: str | None
    reserved: int
    attempt: int  # that reserved
    campaign_state: str
    budget: int | None
    brief: Brief
    values: Values | None


class Loader:
    def __init__(self, database: Database, people: People) -> None:
        self._database = database
        self._people = people
        self._briefs: dict[str, Brief] = {}  # by campaign: what has started does not change
        self._wanted: dict[tuple[str, str], asyncio.Future[Loaded | None]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def load(self, scope: Scope, message_id: str) -> Loaded | None:
        """None when there is no such message any more."""
        key = (scope.tenant, message_id)
        if not self._wanted:
            asyncio.get_running_loop().call_soon(self._read)
        future = self._wanted.get(key)
        if future is None:
            future = self._wanted[key] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    def _read(self) -> None:
        wanted, self._wanted = self._wanted, {}
        task = asyncio.get_running_loop().create_task(self._answer(wanted))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _answer(self, wanted: "dict[tuple[str, str], asyncio.Future[Loaded | None]]") -> None:
        try:
            found = await self._database.read(self._load, list(wanted))
        except Exception as error:
            for future in wanted.values():
                future.set_exception(error)
                future.exception()  # whoever waited may be gone
            return
        for key, future in wanted.items():
            future.set_result(found.get(key))

    def _load(self, session: Session, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Loaded]:
        found: dict[tuple[str, str], Loaded] = {}
        for tenant in {tenant for tenant, _ in keys}:
            scope = Scope(tenant)
            ids = [message for owner, message in keys if owner == tenant]
            rows = session.execute(MESSAGES, {"tenant": tenant, "ids": ids}).mappings().all()
            campaigns = {
                row["id"]: row
                for row in session.execute(
                    CAMPAIGNS, {"tenant": tenant, "ids": list({row["campaign_id"] for row in rows})}
                ).mappings()
            }
            for row in rows:
                found[tenant, row["id"]] = self._loaded(session, scope, row, campaigns[row["campaign_id"]])
        return found

    def _loaded(self, session: Session, scope: Scope, row: RowMapping, campaign: RowMapping) -> Loaded:
        brief = self._briefs.get(campaign["id"])
        if brief is None:
            if len(self._briefs) >= BRIEFS:
                self._briefs.clear()
            brief = self._briefs[campaign["id"]] = read_brief(session, scope, campaign["id"])
        values = None
        if row["person"] is not None:
            values = values_of(session, scope, self._people, row, brief)
        return Loaded(
            row["campaign_id"], row["state"], row["job_id"], row["reserved"], row["attempt"], campaign["state"],
            campaign["budget"], brief, values,
        )  # fmt: skip


def values_of(session: Session, scope: Scope, people: People, row: Any, brief: Brief) -> Values:
    """Of a row with a contact's id as `person`, key, name, email and fields."""
    built_in = {"key": row["key"], "name": row["name"], "email": row["email"]}
    fields = {**_fields.decode(row["fields"]), **{name: value for name, value in built_in.items() if value}}
    said = None
    if LAST_CONVERSATION in brief.compiled.body.names:
        said = people.last_conversation(session, scope, row["person"])
    return Values(fields, (), said or "")


def read_brief(session: Session, scope: Scope, campaign_id: str) -> Brief:
    """Raises Missing."""
    row = session.get(CampaignRow, campaign_id)
    if row is None or row.tenant_id != scope.tenant:
        raise Missing("There is no such campaign.", code="campaign_missing")
    return Brief(
        campaign_id=row.id,
        compiled=templates.compiled(session, scope, row.template_id, row.template_version),
        model=row.model,
        options=Options(**(row.options or {})),
        collection=row.collection,
        code=row.code,
        walls=tuple(frozenset(wall) for wall in row.walls or ()),
    )
