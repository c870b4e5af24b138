"""The whole HTTP side as one ASGI application: edge, OpenAI's door, the API, the page."""

import functools
from collections.abc import Awaitable, MutableMapping
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from terrace import __version__
from terrace.web import page, problems
from terrace.web.access import Doorkeeper
from terrace.web.api import (
    analyses,
    audit,
    auth,
    cache,
    campaigns,
    chat,
    collections,
    contacts,
    conversations,
    databases,
    documents,
    generations,
    health,
    invitations,
    jobs,
    keys,
    limits,
    members,
    models,
    oidc,
    operations,
    prices,
    questions,
    schedules,
    search,
    sessions,
    sources,
    status,
    templates,
    tenant,
    tenants,
    usage,
    users,
    webhooks,
)
from terrace.web.description import Described
from terrace.web.edge import ASGI, Edge, Receive, Send
from terrace.web.security import CORS, Guard
from terrace.web.services import Services

DESCRIPTION = """Chat, retrieval with checked citations and durable streamed jobs behind one API.
Errors are problem details (RFC 9457); streams are server-sent events that resume with `Last-Event-ID`.
OpenAI's own SDKs work at `/v1`."""


RESOURCES = (
    cache, chat, questions, conversations, documents, collections, search, jobs, models, status,
    sources,
    generations,
    schedules, health,
    contacts, databases, templates, campaigns,
    webhooks,
    analyses,
    users, auth, sessions, oidc, keys, members, invitations, limits, usage, prices, audit, tenant, tenants,
)  # fmt: skip


def build(services: Services, doorkeeper: Doorkeeper, openai: ASGI) -> ASGI:
    """`openai` answers everything under /v1."""
    return _at_the_edge(_api(docs=services.settings.web.docs, max_body=services.settings.web.max_json_bytes), openai,
                        services, doorkeeper)  # fmt: skip


def build_small(services: Services, doorkeeper: Doorkeeper) -> ASGI:
    """What a process without doors answers: how it does."""
    app = Described(title="Terrace", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)
    operations.router.enter(app.router)
    return _at_the_edge(app, app, services, doorkeeper)


def _at_the_edge(app: FastAPI, openai: ASGI, services: Services, doorkeeper: Doorkeeper) -> ASGI:
    settings = services.settings
    app.state.services = services
    app.state.doorkeeper = doorkeeper
    origins = [
        *(each.rstrip("/") for each in settings.web.cors_origins),
        *filter(None, [settings.web.public_url.rstrip("/").lower()]),
    ]
    guard = Guard(settings.web.hosts, origins, open=lambda: services.gatekeeper.local and not settings.insecure)
    return Edge(
        Doors(app, openai),
        guard=guard,
        cors=CORS(settings.web.cors_origins),
        metrics=services.metrics,
        max_body=settings.web.max_json_bytes,
    )


def describe() -> dict[str, Any]:
    """The OpenAPI document."""
    return _api(docs=True, max_body=0).openapi()


def _api(*, docs: bool, max_body: int) -> FastAPI:
    app = Described(
        title="Terrace",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if docs else None,
        redirect_slashes=False,
        max_body_size=max_body,
    )
    problems.install(app)
    first, last = _routes()
    app.router.routes += first
    page.mount(app, docs=docs)
    app.router.routes += last  # match what nothing before them did
    return app


@functools.cache
def _routes() -> tuple[list[BaseRoute], list[BaseRoute]]:
    """Of the API, made once a process: that takes FastAPI a third of a second, and they know nothing of a house."""
    first, last = (APIRouter(responses=problems.RESPONSES) for _ in range(2))
    for resource in RESOURCES:
        resource.router.enter(first, "/api")
        if short := getattr(resource, "short", None):
            short.enter(first, described=False)
        if fallback := getattr(resource, "last", None):
            fallback.enter(last, described=False)
    operations.router.enter(first)
    return first.routes, last.routes


class Doors:
    """/v1 goes past the framework; everything else through it."""

    def __init__(self, app: ASGI, openai: ASGI) -> None:
        self._app = app
        self._openai = openai

    def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            scope["terrace.route"] = "/v1"
            return self._openai(scope, receive, send)
        return self._app(scope, receive, send)
