"""What is staged is looked through once it is all there: what fits stays, the rest is written down and goes."""

from collections.abc import Sequence
from hashlib import sha256

from terrace.knowledge.naming import key, tidy
from terrace.moving.mongo_qdrant.base import Counts, Problem
from terrace.moving.mongo_qdrant.binding import bind
from terrace.moving.mongo_qdrant.mapping import Mapping
from terrace.moving.mongo_qdrant.staging import Staging, Whole

SETTLED = "settled"
FOUND = ("found:documents", "found:chunks", "found:vectors")
PAGE = 200

# What is told of each problem, and what becomes of it.
TOLD = {
    "document_without_id": "Documents without an id: left out.",
    "document_twice": "Documents whose id another one has: left out.",
    "document_empty": "Documents with neither text nor passages: left out.",
    "document_too_long": "Documents whose text is too long to keep whole: they are made of their passages.",
    "document_twin": "Documents with the same text as another in their collection: left out, as an upload would be.",
    "chunk_without_document": "Passages that name no document: left out.",
    "chunk_orphan": 'Passages whose document is not there: left out (`orphans = "keep"` brings them).',
    "chunk_twice": "Passages whose id another one has: left out.",
    "chunk_empty": "Passages without text: left out.",
    "chunk_too_long": "Passages of more than 100,000 characters: left out.",
    "chunk_without_order": "Passages without a place in their document: they come last in it.",
    "text_cleaned": "Texts with characters no database keeps (NUL, half surrogates): those are taken out.",
    "point_without_chunk": "Points that name no passage: left out.",
    "vector_missing_name": "Points without the named vector: their passages are embedded anew.",
    "vector_twice": "Points of a passage that has a vector already: left out.",
    "vector_orphan": "Vectors whose passage is not there: left out.",
    "vector_not_numbers": "Vectors that are no numbers: their passages are embedded anew.",
    "vector_without_direction": "Vectors of zeros or without bound: their passages are embedded anew.",
    "vector_width": "Vectors of another width than most: their passages are embedded anew.",
    "vector_missing": "Passages without a vector: embedded anew.",
}


def settle(staging: Staging, mapping: Mapping) -> None:
    """Once; what is staged then is what can come."""
    if staging.finished(SETTLED):
        return
    for name, count in zip(FOUND, _tuple(staging.counts()), strict=True):
        if not staging.finished(name):
            staging.finish(name, count)
    if mapping.orphans == "keep":
        staging.adopt(mapping.collection)
    staging.drop("chunk_orphan", "chunks", "id", "document NOT IN (SELECT id FROM documents)")
    staging.drop(
        "document_empty", "documents", "id",
        "trim(text) = '' AND NOT EXISTS (SELECT 1 FROM chunks WHERE document = documents.id)",
    )  # fmt: skip
    _drop_twins(staging)
    staging.drop("vector_orphan", "vectors", "chunk", "chunk NOT IN (SELECT id FROM chunks)")
    if len(widths := staging.dimensions()) > 1:
        staging.drop("vector_width", "vectors", "chunk", f"dimensions != {widths[0][0]}")
    if widths:
        staging.note("vector_missing", "SELECT id FROM chunks WHERE id NOT IN (SELECT chunk FROM vectors)")
    staging.finish(SETTLED, 1)


def _drop_twins(staging: Staging) -> None:
    """One text is one document in a collection of Terrace; the first by id stays."""
    seen: set[tuple[str, str]] = set()
    after = ""
    while page := staging.document_ids(after, PAGE):
        after = page[-1][0]
        for id, _ in page:
            whole = staging.whole(id)
            same = key(tidy(whole.document.collection)), sha256(original(whole).encode()).hexdigest()
            if same in seen:
                staging.drop_document("document_twin", id)
            seen.add(same)


def original(whole: Whole) -> str:
    """What is kept as the document's file: its text as the source has it, or as its passages give it."""
    return whole.document.text or bind("", [each.text for each in whole.chunks])[0]


def found(staging: Staging) -> Counts:
    told = staging.streams()
    return Counts(*(told[name] for name in FOUND))


def problems(staging: Staging) -> Sequence[Problem]:
    """In the order of documents, passages, vectors."""
    every = [(code, *staging.problem(code)) for code in TOLD]
    return [Problem(code, count, TOLD[code], examples) for code, count, examples in every if count]


def _tuple(counts: Counts) -> tuple[int, int, int]:
    return counts.documents, counts.chunks, counts.vectors
