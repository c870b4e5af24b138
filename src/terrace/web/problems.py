"""Errors as problem details (RFC 9457)."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from terrace.errors import Kind, TerraceError
from terrace.telemetry.logs import redact, request_id

STATUS: dict[Kind, int] = {
    "invalid": 422,
    "unauthenticated": 401,
    "denied": 403,
    "missing": 404,
    "conflict": 409,
    "limited": 429,
    "unavailable": 503,
    "internal": 500,
}

PROBLEM = {
    "title": "Problem",
    "description": "RFC 9457: `detail` is for a person, `code` and `kind` for programs.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "kind", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "kind": {"enum": list(STATUS)},
        "request_id": {"type": "string"},
    },
}
WINDOWS = {"_per_minute": 60, "_per_day": 86_400, "_per_month": 2_592_000}  # seconds; a month of thirty days
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What went wrong, and what to do about it",
        "content": {"application/problem+json": {"schema": PROBLEM}},
    }
}
"""What every operation may answer besides its own, for the OpenAPI document."""


def status_of(error: TerraceError) -> int:
    return error.status or STATUS[error.kind]


def problem(
    status: int, detail: str, *, code: str, kind: str, headers: dict[str, str] | None = None, **extra: Any
) -> Response:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": redact(detail),
        "code": code,
        "kind": kind,
        "request_id": request_id.get(),
        **extra,
    }
    return Response(
        msgspec.json.encode(body, enc_hook=str), status, headers=headers, media_type="application/problem+json"
    )


def from_error(error: TerraceError) -> Response:
    extra = error.extra if error.retry_after is None else {**error.extra, "retry_after": round(error.retry_after, 3)}
    return problem(
        status_of(error), error.message, code=error.code, kind=error.kind, headers=headers_of(error), **extra
    )


def headers_of(error: TerraceError) -> dict[str, str]:
    """What a client may act on without reading the body: how to log in, when to come back, which limit was reached."""
    headers = {}
    if status_of(error) == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if (limit := error.extra.get("limit")) is not None:
        headers.update(_rate_limit(str(limit), error.extra, error.retry_after))
    return headers


def _rate_limit(limit: str, told: Mapping[str, Any], retry_after: float | None) -> dict[str, str]:
    """The limit reached: a quota over a window, and what is left of it (draft-ietf-httpapi-ratelimit-headers)."""
    value, used = float(told.get("value", 0)), float(told.get("used", 0))
    window = next((f";w={seconds}" for span, seconds in WINDOWS.items() if limit.endswith(span)), "")
    reset = "" if retry_after is None else f";t={math.ceil(retry_after)}"
    return {
        "RateLimit-Policy": f'"{limit}";q={_number(value)}{window}',
        "RateLimit": f'"{limit}";r={_number(max(0.0, value - used))}{reset}',
    }


def _number(value: float) -> str:
    """A structured field's integer or decimal (RFC 9651): at most three digits after the point, never rounded up."""
    return str(int(value)) if value == int(value) else f"{math.floor(value * 1000) / 1000:.3f}"


def unforeseen() -> Response:
    """For what nobody thought of: the log has it, the client gets an id to ask with."""
    return problem(
        500,
        "Something went wrong on our side. The log holds the details under this request id.",
        code="internal",
        kind="internal",
    )


def _where(location: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in location if part != "body") or "body"


def install(app: FastAPI) -> None:
    """Have every failure leave as a problem document."""

    @app.exception_handler(Exception)
    async def unknown(_request: Request, _error: Exception) -> Response:
        return unforeseen()  # and the framework raises it again, for `web.edge` to log

    @app.exception_handler(TerraceError)
    async def ours(_request: Request, error: TerraceError) -> Response:
        return from_error(error)

    @app.exception_handler(RequestValidationError)
    async def validation(_request: Request, error: RequestValidationError) -> Response:
        errors = [{"field": _where(each["loc"]), "message": each["msg"]} for each in error.errors()[:20]]
        broken = any(each["type"] == "json_invalid" for each in error.errors())
        detail = "; ".join(f"{each['field']}: {each['message']}" for each in errors)
        if broken:
            return problem(400, f"The body is not valid JSON: {detail}", code="invalid_json", kind="invalid")
        return problem(422, detail, code="invalid", kind="invalid", errors=errors)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        match error.status_code:
            case 404:
                detail, kind = f"There is nothing at {request.url.path}. The API is described at /docs.", "missing"
            case 405:
                allowed = headers.get("Allow", "another method")
                detail, kind = f"{request.method} is not possible here; use {allowed}.", "invalid"
            case 413:
                detail, kind = "The body is too large. Send less, or upload it as a document.", "invalid"
            case status:
                detail, kind = str(error.detail), "invalid" if status < 500 else "internal"
        code = {404: "missing", 405: "method_not_allowed", 413: "body_too_large"}.get(error.status_code, kind)
        return problem(error.status_code, detail, code=code, kind=kind, headers=headers)
