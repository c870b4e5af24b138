"""A tenant with contacts and templates, jobs that run, and a model that says what it is told to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session

from terrace import settings
from terrace.accounts.limits.memory import MemoryLimits
from terrace.campaigns.contacts import store as contacts
from terrace.campaigns.contacts.service import Contacts
from terrace.campaigns.runs.base import Campaign, Message, Wanted
from terrace.campaigns.runs.opening import Opened, open_campaigns
from terrace.campaigns.runs.purse import Purses
from terrace.campaigns.templates.drafts import Draft
from terrace.jobs.engines.local import LocalJobs
from terrace.knowledge.base import Filter, Hit, Page
from terrace.models.base import Passage, RankedSentence
from terrace.models.providers.fake import Fake
from terrace.models.service import open_models
from terrace.models.transport import open_transport
from terrace.storage import Database
from terrace.telemetry.calls import PICODOLLARS, Call
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.prices import FREE, Price
from terrace.types import Scope

CENT = Price(PICODOLLARS // 100, PICODOLLARS // 100, PICODOLLARS // 100, "2026-11-21")  # a cent a token


class Told:
    """`gpt` costs a cent a token, `free` nothing, and of others nobody knows."""

    def of(self, kind: str, provider: str, model: str) -> Price | None:
        return {"gpt": CENT, "free": FREE}.get(model)


class Shelf:
    """Documents that hold one passage for every query."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, Filter]] = []

    async def search(self, scope: Scope, query: str, *, k: int, filter: Filter) -> Sequence[Hit]:
        self.asked.append((query, k, filter))
        text = f"The warranty of {query} lasts two years."
        return [
            Hit(
                "chk_1", "doc_1", "warranty.txt", "Warranty", "default", text, 0.9, None, None, None, (), 0, len(text),
                "/documents/doc_1",
            )
        ]  # fmt: skip

    async def pages(self, scope: Scope, hits: Sequence[Hit]) -> Mapping[str, Sequence[Page]]:
        return {}


class Emitted:
    """What was told to others."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.sent: list[tuple[str, str]] = []

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None:
        self.events.append((type, data))

    def send_to(self, session: Session, scope: Scope, url: str, type: str, data: dict[str, Any]) -> None:
        self.sent.append((url, type))


class Ranker:
    async def rank(
        self, question: str, passages: Sequence[Passage], scope: Scope | None = None
    ) -> list[RankedSentence]:
        return []


@dataclass
class Town:
    database: Database
    scope: Scope
    jobs: LocalJobs
    model: Fake
    opened: Opened
    people: Contacts
    limits: MemoryLimits
    shelf: Shelf
    emitted: Emitted
    calls: list[Call] = field(default_factory=list)

    @property
    def campaigns(self) -> Any:
        return self.opened.campaigns

    async def contacts(self, count: int, list: str = "Clients", **fields: str) -> list[str]:
        """Contacts in the list, `fields` formatted with their number; their ids."""

        def work(session: Session) -> list_[str]:
            found = contacts.ensure_list(session, self.scope, list)
            start, ids = contacts.count(session, self.scope, None), []
            for number in range(start, start + count):
                own = {name: value.format(n=number) for name, value in fields.items()}
                row = contacts.add(session, self.scope, f"c{number}@x.org", f"Person {number}", f"c{number}@x.org", own)
                contacts.set_lists(session, self.scope, row.id, [found.id])
                ids.append(row.id)
            contacts.touch(session, self.scope, [found.id])
            return ids

        return await self.database.write(work)

    async def template(self, body: str = "Write to {{contact.name}}.", **more: str) -> str:
        name = f"Template {len((await self.opened.templates.list(self.scope))[0])}"
        return (await self.opened.templates.create(self.scope, name, Draft(body, **more))).id  # type: ignore[arg-type]

    async def campaign(self, body: str = "Write to {{contact.name}}.", mode: str = "write", **wanted: Any) -> Campaign:
        draft = {name: wanted.pop(name) for name in ("system", "knowledge_query") if name in wanted}
        template = await self.template(body, mode=mode, **draft)
        wanted = {"list": "Clients", "template": template, "model": "fake/free", **wanted}
        made: Campaign = await self.campaigns.create(self.scope, Wanted(**wanted))
        return made

    async def over(self, campaign: Campaign, *states: str) -> Campaign:
        """Once it is in one of these states, and nothing is being written."""
        wanted = states or ("finished",)
        async with asyncio.timeout(60):
            while True:
                found: Campaign = await self.campaigns.get(self.scope, campaign.id)
                if found.state in wanted and not found.counts.writing:
                    await self.check(found)
                    return found
                assert found.state not in ("failed",) or "failed" in wanted, found
                await asyncio.sleep(0.01)

    async def at_work(self, count: int) -> None:
        """Until the model has been asked so often and answers."""
        async with asyncio.timeout(60):
            while self.model.running < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def messages(self, campaign: Campaign, **filters: Any) -> list[Message]:
        found, _ = await self.campaigns.messages(self.scope, campaign.id, limit=200, **filters)
        messages: list[Message] = found
        return messages

    async def check(self, campaign: Campaign) -> None:
        """What is counted is what is there, and what was spent is what the messages cost."""

        def work(session: Session) -> tuple[Any, Any]:
            rows = session.execute(
                text(
                    "SELECT state, COUNT(*) AS n, SUM(cost) AS cost, SUM(reserved) AS reserved, "
                    "COUNT(approved_at) AS approved FROM campaign_messages WHERE campaign_id = :id "
                    "GROUP BY state"
                ),
                {"id": campaign.id},
            ).all()
            own = session.execute(text("SELECT * FROM campaigns WHERE id = :id"), {"id": campaign.id}).mappings().one()
            return rows, dict(own)

        rows, own = await self.database.read(work)
        counted = {row.state: row.n for row in rows}
        for state in ("writing", "done", "failed", "skipped"):
            assert own[state] == counted.get(state, 0), (state, own[state], counted)
        assert own["total"] == sum(counted.values())
        assert own["approved"] == sum(row.approved for row in rows)
        assert own["reserved"] == sum(row.reserved for row in rows)
        if not own["preview"]:
            assert own["spent"] == sum(row.cost for row in rows)
        if own["budget"] is not None:
            assert own["spent"] + own["reserved"] <= own["budget"]


list_ = list
Open = Callable[..., Any]


@pytest.fixture
async def open_town(database: Database, scope: Scope, tmp_path: Path) -> AsyncIterator[Open]:
    """`await open_town(scripts..., work=True, **settings of jobs)`."""
    towns: list[Any] = []

    async def open(*scripts: Any, work: bool = True, models: Any = None, **options: Any) -> Town:
        calls: list[Call] = []
        ledger = Ledger(database, tmp_path / "usage")
        await ledger.start()
        limits = MemoryLimits(
            database, ledger, Told(), calls.append, settings.Limits(), stored=lambda session, subject: (0, 0)
        )
        await limits.start()
        fake = Fake(scripts=scripts, models=("free", "gpt", "odd"))
        chosen = settings.Models(discover=False, retries=0, **(models or {}))
        transport = open_transport(chosen)
        meter = Purses(limits, limits.largest, Told().of)
        served = open_models(chosen, transport, Ranker(), meter, others=[fake])
        quick = settings.Jobs(
            **{
                "backoff": 0.02,
                "backoff_max": 0.05,
                "max_failures": 2,
                "drain": 0.2,
                "lease": 60,
                "heartbeat": 1,
                **options,
            }
        )
        jobs = LocalJobs(database, quick)
        people, shelf, emitted = Contacts(database), Shelf(), Emitted()
        opened = open_campaigns(
            database, jobs, served, shelf, Told(), people, settings.Campaigns(concurrency=20), emitted
        )
        for kind in opened.kinds:
            jobs.register(kind)
        if work:
            await jobs.start()

        async def close() -> None:
            opened.feed.close()
            await jobs.close()
            await served.close()
            await transport.close()
            await limits.close()
            await ledger.close()

        towns.append(close)
        return Town(database, scope, jobs, fake, opened, people, limits, shelf, emitted, calls)

    yield open
    for close in towns:
        await close()


@pytest.fixture
async def town(open_town: Open) -> Town:
    made: Town = await open_town()
    return made
