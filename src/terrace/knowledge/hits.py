"""The passages that an index found, with their text and where it stands, as doors and chat show them."""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from sqlmodel import Session

from terrace.knowledge.base import Hit, Scored
from terrace.storage.database import driver_of
from terrace.types import Scope

_FOUND = """
    SELECT chunks.number, chunks.id, document_id, documents.name, chunks.title, collections.name, text,
        page, CAST(headings AS TEXT), start_char, end_char, source_url
    FROM chunks
    JOIN documents ON documents.id = document_id
    JOIN collections ON collections.id = collection_id
    WHERE """
# The plus keeps SQLite from going through all that the tenant has.
_ON_SQLITE = _FOUND + "+chunks.tenant_id = ? AND chunks.number IN (SELECT value FROM json_each(?))"
_ON_POSTGRESQL = _FOUND + "chunks.tenant_id = %s AND chunks.number = ANY(%s::bigint[])"


def hits_of(session: Session, scope: Scope, found: Sequence[Scored]) -> list[Hit]:
    """In the order found; chunks deleted meanwhile are left out."""
    numbers = [each.number for each in found]
    # Past SQLAlchemy, which would double what this takes.
    if session.get_bind().dialect.name == "sqlite":
        rows = driver_of(session).execute(_ON_SQLITE, (scope.tenant, json.dumps(numbers)))
    else:
        rows = driver_of(session).execute(_ON_POSTGRESQL, (scope.tenant, numbers))
    known = {number: rest for number, *rest in rows.fetchall()}
    return [_hit(known[each.number], each) for each in found if each.number in known]


def document_url(document_id: str, start: int, end: int, page: int | None = None) -> str:
    """Opens the page or text with the span marked."""
    where = f"page={page}&" if page is not None else ""
    return f"/documents/{quote(document_id, safe='')}?{where}start={start}&end={end}"


def _hit(row: Sequence[Any], scored: Scored) -> Hit:
    chunk, document, name, title, collection, text, page, headings, start, end, source_url = row
    return Hit(
        chunk_id=chunk,
        document_id=document,
        document_name=name,
        title=title,
        collection=collection,
        text=text,
        score=scored.score,
        text_score=scored.text_score,
        vector_score=scored.vector_score,
        page=page,
        headings=tuple(json.loads(headings)),
        start=start,
        end=end,
        url=document_url(document, start, end, page),
        source_url=source_url,
    )
