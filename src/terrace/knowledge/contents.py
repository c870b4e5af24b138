"""What an ingest job writes. Each first checks that the document is there and still this job's."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import insert
from sqlmodel import Session, col, select

from terrace.errors import Conflict, Missing
from terrace.jobs.base import Job
from terrace.knowledge import store
from terrace.knowledge.base import Chunk, Index, IndexedChunk, Parsed
from terrace.knowledge.tables import ChunkRow, DocumentRow, PageRow
from terrace.types import Scope, new_id, now

MAX_WARNINGS = 50
WORDS_ONLY = "Found by words only: no embedding model is available. "  # how such a warning begins


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that waits for its vector."""

    id: str
    text: str
    text_sha256: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One parse of a document, ready to be stored."""

    parsed: Parsed
    chunks: Sequence[Chunk]
    text_blob: str


def fenced(session: Session, scope: Scope, document_id: str, job_id: str) -> DocumentRow:
    """The document, if this job may write it. Raises Missing (deleted) or Conflict (superseded)."""
    row = store.get(session, scope, document_id)
    if row.job_id != job_id:
        raise Conflict("A newer job reads this document.", code="superseded")
    return row


def begin(session: Session, scope: Scope, document_id: str, job_id: str, *, parse: bool) -> DocumentRow:
    """Mark the document as being read. Its `parsed_by` tells whether this job's chunks are there already."""
    row = fenced(session, scope, document_id, job_id)
    row.state = "parsing" if parse and row.parsed_by != job_id else "embedding"
    row.error = None
    row.updated_at = now()
    return row


def replace(
    session: Session, scope: Scope, index: Index, document_id: str, job_id: str, reading: Reading, model: str | None
) -> list[Passage]:
    """Swap the document's chunks, pages and text for those just read; vectors of unchanged passages stay.

    One transaction: a search sees the old ones or the new ones, never half of each. Returns what has no vector yet.
    """
    row = fenced(session, scope, document_id, job_id)
    parsed = reading.parsed
    title = parsed.title or row.name
    rows = [_chunk_row(scope, document_id, title, chunk) for chunk in reading.chunks]
    passages = [Passage(each["id"], each["text"], each["text_sha256"]) for each in rows]
    hashes = [passage.text_sha256 for passage in passages]
    known = index.known_vectors(session, scope, model, hashes) if model else {}
    store.forget_contents(session, scope, index, document_id)
    if rows:
        session.execute(insert(ChunkRow), rows)
    _add_pages(session, scope, document_id, parsed)
    index.add_text(
        session,
        scope,
        [
            IndexedChunk(each["id"], document_id, row.collection_id, title, chunk)
            for each, chunk in zip(rows, reading.chunks, strict=True)
        ],
    )
    missing = add_known(session, scope, index, model, passages, known) if model else passages
    store.trash(session, scope, row.text_blob)
    store.changed(session, scope, row.collection_id)
    row.text_blob = reading.text_blob
    row.title = parsed.title
    store.set_name(row, row.name)
    row.media_type = parsed.media_type
    row.pages = len(parsed.pages) or None
    row.chunk_count = len(rows)
    row.characters = len(parsed.text)
    row.warnings = list(parsed.warnings[:MAX_WARNINGS])
    row.parsed_by = job_id
    row.state, row.searchable, row.embedding = "embedding", "words", None
    row.updated_at = now()
    return missing


def _chunk_row(scope: Scope, document_id: str, title: str, chunk: Chunk) -> dict[str, Any]:
    return {
        "id": new_id("chk"),
        "tenant_id": scope.tenant,
        "document_id": document_id,
        "ordinal": chunk.ordinal,
        "start_char": chunk.span.start,
        "end_char": chunk.span.end,
        "page": chunk.page,
        "headings": list(chunk.headings),
        "title": title,
        "text": chunk.text,
        "text_sha256": sha256(chunk.text.encode()).hexdigest(),
    }


def _add_pages(session: Session, scope: Scope, document_id: str, parsed: Parsed) -> None:
    rows = [
        {
            "document_id": document_id,
            "number": page.number,
            "tenant_id": scope.tenant,
            "start_char": page.span.start,
            "end_char": page.span.end,
        }
        for page in parsed.pages
    ]
    if rows:
        session.execute(insert(PageRow), rows)


def _passages(session: Session, scope: Scope, document_id: str) -> list[Passage]:
    query = (
        select(ChunkRow.id, ChunkRow.text, ChunkRow.text_sha256)
        .where(ChunkRow.tenant_id == scope.tenant, ChunkRow.document_id == document_id)
        .order_by(col(ChunkRow.ordinal))
    )
    return [Passage(*row) for row in session.exec(query)]


def text_blobs(session: Session, scope: Scope, document_id: str) -> set[str]:
    """The key of the document's text, if there is one."""
    query = select(DocumentRow.text_blob).where(DocumentRow.tenant_id == scope.tenant, DocumentRow.id == document_id)
    return {key for key in session.exec(query) if key is not None}


def reuse(session: Session, scope: Scope, index: Index, document_id: str, job_id: str, model: str) -> list[Passage]:
    """Give the document's passages the vectors that the same text has already; returns those that still need one."""
    fenced(session, scope, document_id, job_id)
    passages = _passages(session, scope, document_id)
    known = index.known_vectors(session, scope, model, [passage.text_sha256 for passage in passages])
    return add_known(session, scope, index, model, passages, known)


def add_known(
    session: Session,
    scope: Scope,
    index: Index,
    model: str,
    passages: Sequence[Passage],
    known: dict[str, Any],
) -> list[Passage]:
    import numpy as np

    served = [passage for passage in passages if passage.text_sha256 in known]
    if served:
        vectors = np.stack([known[passage.text_sha256] for passage in served])
        index.add_vectors(session, scope, model, [passage.id for passage in served], vectors)
    return [passage for passage in passages if passage.text_sha256 not in known]


def finish(
    session: Session, scope: Scope, document_id: str, job_id: str, *, model: str | None, why_words_only: str = ""
) -> DocumentRow:
    """The document is ready, by meaning when its vectors are `model`'s, else by words and a warning that says why.

    Runs in the transaction that marks its job succeeded.
    """
    row = fenced(session, scope, document_id, job_id)
    warnings = [warning for warning in row.warnings if not warning.startswith(WORDS_ONLY)]
    store.changed(session, scope, row.collection_id)
    row.state = "ready"
    row.searchable = "meaning" if model else "words"
    row.embedding = model
    row.warnings = warnings if model else [*warnings, WORDS_ONLY + why_words_only]
    row.error = None
    row.updated_at = now()
    return row


def ended(session: Session, scope: Scope, job: Job) -> DocumentRow | None:
    """The job failed for good or was cancelled: the document says so too. What it had before stays searchable.

    None when it is deleted, or another job's by now.
    """
    document_id = str(job.payload.get("document_id", ""))
    try:
        row = fenced(session, scope, document_id, job.id)
    except (Missing, Conflict):
        return None
    row.state = "failed"
    row.error = _why(job)
    row.updated_at = now()
    return row


def told(row: DocumentRow) -> dict[str, Any]:
    """What an event says about it."""
    return {
        "id": row.id,
        "name": row.name,
        "state": row.state,
        "collection_id": row.collection_id,
        "pages": row.pages,
        "chunks": row.chunk_count,
        "searchable": row.searchable,
        "error": row.error,
    }


def again(session: Session, scope: Scope, job: Job) -> None:
    """The job goes back in the queue, so its document waits. Raises Missing (deleted) or Conflict (superseded)."""
    row = fenced(session, scope, str(job.payload.get("document_id", "")), job.id)
    row.state, row.error, row.updated_at = "queued", None, now()


def _why(job: Job) -> dict[str, Any]:
    if job.error is not None and job.state == "failed":
        return {"kind": job.error.kind, "code": job.error.code, "message": job.error.message}
    message = "Reading this document was cancelled. Process it again to make it searchable."
    return {"kind": "conflict", "code": "cancelled", "message": message}
