"""A campaign's messages as a table for a spreadsheet, which shall compute nothing in it, or as lines of JSON."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import msgspec

from terrace.campaigns.runs import store
from terrace.campaigns.runs.base import Message, MessageState
from terrace.storage import Database
from terrace.types import Scope

Format = Literal["csv", "jsonl"]

READ = 500  # messages at a time
COLUMNS = (
    "message_id", "contact_id", "key", "name", "email", "state", "text", "sources", "model", "cost", "input_tokens",
    "output_tokens", "error", "edited_at", "approved_at", "finished_at",
)  # fmt: skip
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what a spreadsheet computes


async def export(
    database: Database,
    scope: Scope,
    campaign_id: str,
    format: Format,
    *,
    state: MessageState | None = None,
    approved: bool | None = None,
) -> AsyncIterator[bytes]:
    """Piece by piece, in the order of the contacts."""
    if format == "csv":
        yield b"\xef\xbb\xbf" + _csv([COLUMNS])  # spreadsheets take it for UTF-8 then
    cursor: str | None = None
    while True:
        found = await database.read(
            store.messages, scope, campaign_id, state=state, approved=approved, limit=READ, cursor=cursor
        )
        if not found:
            return
        yield _csv([_row(each) for each in found]) if format == "csv" else _lines(found)
        cursor = found[-1].id


def harmless(cell: str) -> str:
    """As text, whatever a spreadsheet would make of it."""
    return f"'{cell}" if cell.lstrip(" ").startswith(FORMULAS) else cell


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def _row(message: Message) -> list[str]:
    contact = message.contact
    sources = "; ".join(
        f"[{each['n']}] {each['document_name']}" + (f", page {each['page']}" if each["page"] else "")
        for each in message.sources
        if each["cited"]
    )
    cells = (
        message.id, contact.id, contact.key, contact.name, contact.email, message.state, message.text or "", sources,
        message.model or "", f"{message.cost:.12f}".rstrip("0").rstrip("."), str(message.input_tokens),
        str(message.output_tokens), message.error.message if message.error else "", _iso(message.edited_at),
        _iso(message.approved_at), _iso(message.finished_at),
    )  # fmt: skip
    return [harmless(cell) for cell in cells]


def _lines(messages: Sequence[Message]) -> bytes:
    return b"".join(msgspec.json.encode(each) + b"\n" for each in messages)


def _iso(moment: Any) -> str:
    return "" if moment is None else moment.isoformat()
