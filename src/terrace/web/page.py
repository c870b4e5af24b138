"""The web app's one page at each of its views, its files, and the API's description.

The files' address holds a sum of their contents: a browser keeps them for good and asks for none again, and after an
upgrade the page names other addresses.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from terrace.web.security import CONTENT_SECURITY_POLICY

PAGE = Path(__file__).parent / "app"
VIEWS = (
    "/", "/chat/{id}", "/documents", "/documents/{id}", "/jobs", "/settings", "/analyses", "/analyses/{id}",
    "/campaigns", "/campaigns/{id}", "/contacts", "/templates", "/sources", "/schedules", "/index", "/webhooks",
    "/login", "/register", "/setup", "/join", "/reset",
    "/account", "/keys", "/usage", "/members", "/limits", "/audit", "/tenants",
)  # fmt: skip
FOR_GOOD = "public, max-age=31536000, immutable"


def mount(app: FastAPI, *, docs: bool) -> None:
    build = fingerprint(PAGE)
    app.mount("/static/{build}", _Static(build))
    page, description = _html("index.html", build), _html("docs.html", build)

    async def view(request: Request) -> Response:
        if request.url.path == "/" and "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"status": "healthy"})
        return page()

    async def describe(_request: Request) -> Response:
        return description()

    for path in VIEWS:
        app.router.routes.append(Route(path, view, methods=["GET"]))
    if docs:
        app.router.routes.append(Route("/docs", describe, methods=["GET"]))
        app.mount("/docs/static", StaticFiles(packages=[("fastapi_offline", "static")]))


@cache
def fingerprint(folder: Path) -> str:
    """A sum of what the files hold and are called: 16 hexadecimal digits."""
    total = hashlib.sha256()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = path.read_bytes()
        total.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()[:16]


class _Static(StaticFiles):
    """The files as they are now, whatever build is asked for: a tab left open over an upgrade finds the rest of it."""

    def __init__(self, build: str) -> None:
        super().__init__(directory=PAGE)
        self._build = build

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        now = scope["path_params"]["build"] == self._build
        response.headers["Cache-Control"] = FOR_GOOD if now else "no-cache"
        return response


def _html(name: str, build: str) -> Callable[[], Response]:
    """A page that names its files where they are now; asked for again each time."""
    text = (PAGE / name).read_text("utf-8").replace('"/static/', f'"/static/{build}/')
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
    return lambda: HTMLResponse(text, headers=headers)
