"""Answers that are not JSON, declared in the OpenAPI document."""

from typing import Any

from starlette.responses import RedirectResponse

EVENTS = "text/event-stream"
_TEXT = {"type": "string"}
_EVENT = {"type": "object", "required": ["event", "data"], "properties": dict.fromkeys(("id", "event", "data"), _TEXT)}


ELSEWHERE: dict[int | str, dict[str, Any]] = {307: {"description": "Where to fetch it, for a few minutes."}}


def elsewhere(link: str) -> RedirectResponse:
    """To where a file can be fetched from: for this time only, so nobody keeps the way there."""
    return RedirectResponse(link, status_code=307, headers={"Cache-Control": "no-store"})


def produces(*types: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=`: what a 200 may be. The schema of a stream is that of each event."""
    return {200: {"content": {each: {"schema": _EVENT if each == EVENTS else _TEXT} for each in types}}}
