"""A conversation as a file."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import msgspec

from terrace.chat.base import Conversation, Message


def branch(messages: Sequence[Message], leaf_id: str | None) -> list[Message]:
    """The messages from the first to `leaf_id`."""
    by_id = {message.id: message for message in messages}
    found: list[Message] = []
    at = by_id.get(leaf_id or "")
    while at is not None and len(found) < len(messages):
        found.append(at)
        at = by_id.get(at.parent_id or "")
    return found[::-1]


def as_json(conversation: Conversation, messages: Sequence[Message]) -> str:
    """Everything, every branch."""
    whole = {**asdict(conversation), "messages": [asdict(message) for message in messages]}
    whole.pop("snippet")
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()


def as_markdown(conversation: Conversation, messages: Sequence[Message]) -> str:
    """The visible branch, each answer with its sources."""
    parts = [f"# {conversation.title}", f"_{_date(conversation.created_at)}_"]
    for message in messages:
        name = "You" if message.role == "user" else f"Answer ({message.model})"
        note = "" if message.state == "complete" else f" _({message.state})_"
        parts.append(f"## {name}{note}\n\n{message.content}".rstrip())
        if message.sources:
            parts.append("\n".join(_source(source) for source in message.sources))
    return "\n\n".join(parts) + "\n"


def _source(source: dict[str, Any]) -> str:
    page = f", page {source['page']}" if source.get("page") is not None else ""
    quote = f": “{' '.join(source['quote'].split())}”" if source.get("quote") else ""
    return f"- [{source['n']}] {source['document_name']}{page}{quote}"


def _date(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")
