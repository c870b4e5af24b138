"""The whole HTTP side as one ASGI application: edge, OpenAI's door, the API, the page."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from terrace import __version__
from terrace.telemetry.metrics import CONTENT_TYPE
from terrace.types import Scope
from terrace.web import problems
from terrace.web.api import chat, collections, conversations, documents, jobs, models, search, status
from terrace.web.edge import ASGI, Edge, Receive, Send
from terrace.web.security import CONTENT_SECURITY_POLICY, LocalGuard
from terrace.web.services import Services

PAGE = Path(__file__).parent / "app"
VIEWS = ("/", "/chat/{id}", "/documents", "/documents/{id}", "/jobs", "/settings")

DESCRIPTION = """Chat, retrieval with checked citations and durable streamed jobs behind one API.
Errors are problem details (RFC 9457); streams are server-sent events that resume with `Last-Event-ID`.
OpenAI's own SDKs work at `/v1`."""


def build(services: Services, openai: ASGI) -> ASGI:
    """`openai` answers everything under /v1."""
    settings = services.settings
    app = FastAPI(
        title="Terrace",
        version=__version__,
        description=DESCRIPTION,
        docs_url="/docs" if settings.web.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.web.docs else None,
        redirect_slashes=False,
    )
    app.state.services = services
    problems.install(app)
    for resource in (chat, conversations, documents, collections, search, jobs, models, status):
        app.include_router(resource.router, prefix="/api")
        if short := getattr(resource, "short", None):
            app.include_router(short, include_in_schema=False)
    _operations(app, services)
    _page(app)
    guard = LocalGuard(settings.web.hosts, settings.web.cors_origins, open_to_all=settings.insecure)
    return Edge(Doors(app, openai), guard=guard, metrics=services.metrics, max_json_bytes=settings.web.max_json_bytes)


class Doors:
    """/v1 goes past the framework; everything else through it."""

    def __init__(self, app: ASGI, openai: ASGI) -> None:
        self._app = app
        self._openai = openai

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            scope["terrace.route"] = "/v1"
            await self._openai(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _operations(app: FastAPI, services: Services) -> None:
    @app.get("/health", tags=["operations"])
    async def health() -> dict[str, str]:
        """Alive: the event loop turns."""
        return {"status": "healthy"}

    @app.get("/ready", tags=["operations"])
    async def ready() -> Response:
        """Able to serve, with a line for each thing it depends on."""
        checks = await services.ready()
        fine = all(state.startswith("ok") for state in checks.values())
        body = {"status": "ready" if fine else "not ready", "checks": checks}
        return JSONResponse(body, 200 if fine else 503)

    @app.get("/metrics", tags=["operations"], response_class=Response)
    async def metrics() -> Response:
        """Prometheus text."""
        await _gauge(services)
        return Response(services.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _gauge(services: Services) -> None:
    """What is counted only when somebody looks."""
    status = await services.status(Scope())
    metrics = services.metrics
    metrics.set_all(metrics.jobs, status["jobs"])
    metrics.set_all(metrics.documents, status["document_states"])
    metrics.chunks.set(status["chunks"])
    metrics.vectors.set(status["vectors"])


class _Static(StaticFiles):
    """Files of the page: revalidated each time, so that an upgrade is seen at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _page(app: FastAPI) -> None:
    app.mount("/static", _Static(directory=PAGE))

    async def page(request: Request) -> Response:
        if request.url.path == "/" and "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"status": "healthy"})
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
        return FileResponse(PAGE / "index.html", media_type="text/html", headers=headers)

    for view in VIEWS:
        app.router.routes.append(Route(view, page, methods=["GET"]))
