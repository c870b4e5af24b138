"""Terrace's answers: read, or raised in its own words. Nothing here needs Airflow."""

from typing import Any

import httpx

TIMEOUT = httpx.Timeout(30.0, read=120.0, write=300.0)  # seconds
FINAL = ("succeeded", "failed", "cancelled")


class TerraceAway(Exception):
    """It cannot be reached, or has no room now; later may help."""


class TerraceRefused(Exception):
    """It said no; asking again the same way does not help."""

    def __init__(self, message: str, code: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def read(answer: httpx.Response) -> Any:
    """The JSON of a good answer; the `detail` of a problem document as an exception."""
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        told = answer.json()
        detail, code = str(told["detail"]), str(told.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        detail, code = f"Terrace answered {answer.status_code}.", ""
    if answer.status_code == 429 or answer.status_code >= 500:
        raise TerraceAway(detail)
    raise TerraceRefused(detail, code, answer.status_code)


def base_url(schema: str | None, host: str | None, port: int | None) -> str:
    """Of a connection's parts; `host` may be a whole address.

    >>> base_url(None, "terrace.example.org", None)
    'http://terrace.example.org'
    """
    host = (host or "localhost").rstrip("/")
    if "://" in host:
        return f"{host}:{port}" if port else host
    return f"{schema or 'http'}://{host}{f':{port}' if port else ''}"


def headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}
