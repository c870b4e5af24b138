"""What assembly hands to the doors, and how a handler asks for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from terrace.settings import Settings
from terrace.telemetry.metrics import Metrics
from terrace.types import Scope

if TYPE_CHECKING:
    from terrace.accounts.audit import Audit
    from terrace.accounts.gatekeeper import Gatekeeper
    from terrace.accounts.keys import Keys
    from terrace.accounts.limits.base import Limits
    from terrace.accounts.mail import Mail
    from terrace.accounts.oidc import OIDCLogin
    from terrace.accounts.people import People
    from terrace.accounts.sessions import Sessions
    from terrace.accounts.tenants import Tenants
    from terrace.analysis.service import Analyses
    from terrace.campaigns.contacts.files import FileImports
    from terrace.campaigns.contacts.service import Contacts
    from terrace.campaigns.databases.service import Databases
    from terrace.campaigns.runs.service import Campaigns
    from terrace.campaigns.templates.service import Templates
    from terrace.chat.cache.service import AnswerCache
    from terrace.chat.questions import Questions
    from terrace.chat.service import Chat
    from terrace.jobs.base import Jobs
    from terrace.knowledge.generations.service import Generations
    from terrace.knowledge.health.service import Health
    from terrace.knowledge.search import Search
    from terrace.knowledge.service import Knowledge
    from terrace.knowledge.sources.service import Sources
    from terrace.models.service import Models
    from terrace.schedules.service import Schedules
    from terrace.telemetry.prices import Prices
    from terrace.telemetry.usage import UsageReport
    from terrace.webhooks.endpoints import Endpoints

Exporter = Callable[[Scope], AsyncIterator[tuple[str, AsyncIterator[bytes]]]]
"""A room's share of a tenant's export: (path in the archive, its bytes)."""


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    gatekeeper: "Gatekeeper"
    people: "People"
    tenants: "Tenants"
    sessions: "Sessions"
    keys: "Keys"
    oidc: "OIDCLogin"
    mail: "Mail"
    audit: "Audit"
    limits: "Limits"
    prices: "Prices"
    usage: "UsageReport"
    jobs: "Jobs"
    schedules: "Schedules"
    health: "Health"
    webhooks: "Endpoints"
    contacts: "Contacts"
    contact_imports: "FileImports"
    databases: "Databases"
    knowledge: "Knowledge"
    sources: "Sources"
    generations: "Generations"
    search: "Search"
    analyses: "Analyses"
    templates: "Templates"
    campaigns: "Campaigns"
    chat: "Chat"
    cache: "AnswerCache"
    questions: "Questions"
    models: "Models"
    metrics: Metrics
    exporters: tuple[Exporter, ...]
    submit: Callable[..., Awaitable[str]]
    ready: Callable[[], Awaitable[dict[str, str]]]
    status: Callable[[Scope], Awaitable[dict[str, Any]]]
    drained: asyncio.Event  # set when we stop and no job of ours runs any more: streams end, clients come back later


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


House = Annotated[Services, Depends(_services)]
