"""Answers that are not JSON, declared in the OpenAPI document."""

from typing import Any

EVENTS = "text/event-stream"


def produces(*types: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=`: what a 200 may be."""
    return {200: {"content": {each: {"schema": {"type": "string"}} for each in types}}}
