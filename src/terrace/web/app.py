"""The whole HTTP side as one ASGI application: edge, OpenAI's door, the API, the page."""

from collections.abc import Awaitable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from terrace import __version__
from terrace.web import problems
from terrace.web.access import Doorkeeper, check_rules
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
from terrace.web.security import CONTENT_SECURITY_POLICY, CORS, Guard
from terrace.web.services import Services

PAGE = Path(__file__).parent / "app"
VIEWS = (
    "/", "/chat/{id}", "/documents", "/documents/{id}", "/jobs", "/settings", "/analyses", "/analyses/{id}",
    "/campaigns", "/campaigns/{id}", "/contacts", "/templates", "/sources", "/schedules", "/index", "/webhooks",
    "/login", "/register", "/setup", "/join", "/reset",
    "/account", "/keys", "/usage", "/members", "/limits", "/audit", "/tenants",
)  # fmt: skip

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
    app.include_router(operations.router)
    check_rules(app.routes)
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
        responses=problems.RESPONSES,
    )
    problems.install(app)
    for resource in RESOURCES:
        app.include_router(resource.router, prefix="/api")
        if short := getattr(resource, "short", None):
            app.include_router(short, include_in_schema=False)
    app.include_router(operations.router)
    _pages(app, docs=docs)
    for resource in RESOURCES:
        if last := getattr(resource, "last", None):  # matches what nothing before it did
            app.include_router(last, include_in_schema=False)
    check_rules(app.routes)
    return app


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


class _Static(StaticFiles):
    """Files of the page: revalidated each time, so that an upgrade is seen at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _pages(app: FastAPI, *, docs: bool) -> None:
    """The web app's one page at each of its views, and the API's description."""
    app.mount("/static", _Static(directory=PAGE))

    async def page(request: Request) -> Response:
        if request.url.path == "/" and "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"status": "healthy"})
        return _html("index.html")

    async def description(_request: Request) -> Response:
        return _html("docs.html")

    for view in VIEWS:
        app.router.routes.append(Route(view, page, methods=["GET"]))
    if docs:
        app.router.routes.append(Route("/docs", description, methods=["GET"]))
        app.mount("/docs/static", StaticFiles(packages=[("fastapi_offline", "static")]))


def _html(name: str) -> Response:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
    return FileResponse(PAGE / name, media_type="text/html", headers=headers)
