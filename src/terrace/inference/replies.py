"""Errors in OpenAI's form."""

from math import ceil

import msgspec

from terrace.errors import Kind, TerraceError

Headers = list[tuple[bytes, bytes]]

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

JSON: Headers = [(b"content-type", b"application/json")]
EVENTS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def status_of(error: TerraceError) -> int:
    return error.status or STATUS[error.kind]


def body_of(error: TerraceError) -> bytes:
    said = {
        "message": error.message,
        "type": TYPE[error.kind],
        "param": error.extra.get("param"),
        "code": error.code,
    }
    return msgspec.json.encode({"error": said})


def headers_of(error: TerraceError) -> Headers:
    if error.retry_after is None:
        return JSON
    return [*JSON, (b"retry-after", b"%d" % max(1, ceil(error.retry_after)))]
