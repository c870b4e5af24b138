"""Errors in OpenAI's form, with the statuses and headers its SDKs act on."""

from typing import Any

import msgspec

from terrace.errors import Kind, TerraceError
from terrace.web.problems import headers_of

STATUS: dict[Kind, int] = {
    "invalid": 400,
    "unauthenticated": 401,
    "denied": 403,
    "missing": 404,
    "conflict": 409,
    "limited": 429,
    "unavailable": 503,
    "internal": 500,
}
TYPE: dict[Kind, str] = {
    "invalid": "invalid_request_error",
    "unauthenticated": "invalid_request_error",
    "denied": "permission_error",
    "missing": "invalid_request_error",
    "conflict": "invalid_request_error",
    "limited": "rate_limit_error",
    "unavailable": "server_error",
    "internal": "server_error",
}
BY_CODE = {
    "upstream_timeout": 504,
    "upstream_stalled": 504,
    "upstream_broke": 502,
    "upstream_error": 502,
    "upstream_nonsense": 502,
    "upstream_too_large": 502,
    "upstream_denied": 502,
    "upstream_wrong_url": 502,
}
HOPELESS = frozenset({"upstream_denied", "upstream_wrong_url", "upstream_too_large"})  # the operator must act
CODE = {"model_unknown": "model_not_found"}  # what SDK users look for
QUOTAS = frozenset({"tokens_per_day", "money_per_day", "money_per_month"})  # OpenAI calls them insufficient_quota
SDK_PATIENCE = 60.0  # seconds; told to wait longer, OpenAI's SDKs ask again at once


def status_of(error: TerraceError) -> int:
    return error.status or BY_CODE.get(error.code) or STATUS[error.kind]


def error_object(error: TerraceError) -> dict[str, Any]:
    return {
        "error": {
            "message": error.message,
            "type": TYPE[error.kind],
            "param": error.extra.get("param"),
            "code": _code(error),
        }
    }


def error_body(error: TerraceError) -> bytes:
    return msgspec.json.encode(error_object(error))


def error_event(error: TerraceError) -> bytes:
    """For a stream that has begun: OpenAI's SDKs raise an APIError when they read it."""
    return b"data: " + error_body(error) + b"\n\n"


def _code(error: TerraceError) -> str:
    if error.kind == "unauthenticated":
        return "invalid_api_key"
    if error.code == "limit_reached":
        return "insufficient_quota" if error.extra.get("limit") in QUOTAS else "rate_limit_exceeded"
    return CODE.get(error.code, error.code)


def error_headers(error: TerraceError) -> list[tuple[bytes, bytes]]:
    headers = [(name.lower().encode(), value.encode()) for name, value in headers_of(error).items()]
    if error.code in HOPELESS or (error.kind == "limited" and not 0 <= (error.retry_after or -1.0) <= SDK_PATIENCE):
        headers.append((b"x-should-retry", b"false"))
    if allow := error.extra.get("allow"):
        headers.append((b"allow", str(allow).encode()))
    return headers
