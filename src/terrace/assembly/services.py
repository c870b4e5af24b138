"""The house as its doors see it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlalchemy import text

from terrace import __version__
from terrace.assembly.house import House
from terrace.chat.questions import Questions
from terrace.errors import Invalid, TerraceError
from terrace.jobs.engines.celery import CeleryJobs
from terrace.storage import Database
from terrace.types import Scope
from terrace.web import app
from terrace.web.edge import ASGI
from terrace.web.services import Services


def application(house: House, told: Callable[[], dict[str, str]] = dict) -> ASGI:
    """`told` adds its lines to those of `/ready`."""
    return app.build(_services(house, told), house.doorkeeper, house.openai)


def small_application(house: House, told: Callable[[], dict[str, str]] = dict) -> ASGI:
    """Of a process without doors: `/health`, `/ready` and `/metrics`."""
    return app.build_small(_services(house, told), house.doorkeeper)


def openapi() -> dict[str, Any]:
    """The API's description, without opening anything."""
    return app.describe()


def _services(house: House, told: Callable[[], dict[str, str]]) -> Services:
    begun = time.monotonic()

    async def submit(scope: Scope, kind: str, payload: dict[str, Any], **options: Any) -> str:
        public = [name for name, each in house.jobs.kinds.items() if each.public]
        if kind not in public:
            raise Invalid(f"Jobs of this kind can be asked for: {', '.join(public)}.", code="unknown_kind")
        return await house.database.write(lambda session: house.jobs.enqueue(session, scope, kind, payload, **options))

    async def ready() -> dict[str, str]:
        state = house.generations.state()
        answering = await house.models.answering()
        return {
            "database": await _checked(house.database),
            "embedding": "ok: words alone, " + state.why if state.state == "absent" else f"ok: {state.model}",
            "model": f"ok: {answering.model}",
            **({"events": house.jobs.carrier.state} if house.settings.redis.url else {}),
            **({"limits": house.limits.state} if house.settings.redis.url else {}),
            **({"broker": house.jobs.publishing} if isinstance(house.jobs, CeleryJobs) else {}),
            **told(),
        }

    async def status(scope: Scope) -> dict[str, Any]:
        counts = await house.knowledge.counts(scope)
        return {
            "version": __version__,
            "uptime": round(time.monotonic() - begun, 1),
            "documents": counts["documents"],
            "document_states": counts["states"],
            "chunks": counts["chunks"],
            "vectors": counts["vectors"],
            "embedding": asdict(house.generations.state()),
            "jobs": await house.jobs.counts(scope),
            "answering": asdict(await house.models.answering()),
            "data": str(house.settings.data),
            "local": house.accounts.gatekeeper.local,
        }

    accounts = house.accounts
    return Services(
        settings=house.settings,
        gatekeeper=accounts.gatekeeper,
        people=accounts.people,
        tenants=accounts.tenants,
        sessions=accounts.sessions,
        keys=accounts.keys,
        oidc=accounts.oidc,
        mail=accounts.mail,
        audit=accounts.audit,
        limits=house.limits,
        prices=house.prices,
        usage=house.usage,
        questions=Questions(house.database, house.chat),
        exporters=house.exporters,
        jobs=house.jobs,
        schedules=house.schedules,
        health=house.health,
        webhooks=house.endpoints,
        contacts=house.contacts,
        contact_imports=house.contact_imports,
        databases=house.databases,
        knowledge=house.knowledge,
        sources=house.sources,
        generations=house.generations,
        search=house.search,
        analyses=house.analyses,
        templates=house.templates,
        campaigns=house.campaigns,
        chat=house.chat,
        cache=house.cache,
        models=house.models,
        metrics=house.metrics,
        submit=submit,
        ready=ready,
        status=status,
        drained=house.drained,
    )


async def _checked(database: Database) -> str:
    """`ok`, or why it can't be read."""
    try:
        async with asyncio.timeout(2):
            await database.read(lambda session: session.execute(text("SELECT 1")).scalar())
    except (TerraceError, TimeoutError) as error:
        return f"failing: {error or 'no answer within 2 seconds'}"
    return "ok"
