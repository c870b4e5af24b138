"""Answers that are not JSON, declared in the OpenAPI document."""

from typing import Any

EVENTS = "text/event-stream"
_TEXT = {"type": "string"}
_EVENT = {"type": "object", "required": ["event", "data"], "properties": dict.fromkeys(("id", "event", "data"), _TEXT)}


def produces(*types: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=`: what a 200 may be. The schema of a stream is that of each event."""
    return {200: {"content": {each: {"schema": _EVENT if each == EVENTS else _TEXT} for each in types}}}
