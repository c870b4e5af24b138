"""A mapping proposed by looking: names that are usual for each part, and ids that are found where they should be."""

from collections.abc import Sequence
from typing import Any

from terrace.errors import Missing
from terrace.moving.mongo_qdrant import fields
from terrace.moving.mongo_qdrant.base import Documents, PointCollection, Points, Record
from terrace.moving.mongo_qdrant.mapping import ChunkFields, DocumentFields, Mapping, VectorFields

LOOKED_AT = 200  # records of each collection

OWNERS = ("document_id", "doc_id", "documentId", "docId", "document", "file_id", "fileId", "parent_id", "source_id",
          "ref_doc_id", "metadata.document_id", "metadata.doc_id", "metadata.source", "meta.source_id",
          "meta.file_path", "source", "file_name", "filename")  # fmt: skip
TEXTS = ("text", "page_content", "content", "chunk_text", "chunk", "body", "passage", "document")
WHOLE_TEXTS = ("text", "content", "full_text", "body", "raw_text", "markdown")
ORDERS = ("order", "index", "chunk_index", "chunkIndex", "ordinal", "position", "seq", "sequence", "number", "chunk_no",
          "metadata.chunk_index", "metadata.chunk", "metadata.start_index", "meta.split_id")  # fmt: skip
PAGES = ("page", "page_number", "pageNumber", "metadata.page", "metadata.page_number", "meta.page_number")
HEADINGS = ("headings", "heading", "section", "metadata.headings", "metadata.section")
TITLES = ("title", "metadata.title", "name", "subject", "filename", "file_name")
NAMES = ("filename", "file_name", "fileName", "original_name", "metadata.filename", "metadata.file_name", "name",
         "metadata.source", "source")  # fmt: skip
URLS = ("url", "source_url", "link", "metadata.url", "metadata.source_url")
CREATED = ("created_at", "createdAt", "uploaded_at", "uploadedAt", "upload_date", "created", "date", "timestamp")
TAGS = ("tags", "labels", "keywords", "categories", "category", "metadata.tags")
INTO = ("collection", "project", "namespace", "workspace", "folder")
CHUNK_IDS = ("chunk_id", "chunkId", "metadata.chunk_id", "mongo_id", "_id")
LISTS = ("chunks", "passages", "segments", "pieces", "parts")


async def guess(documents: Documents | None, points: Points | None) -> Mapping:
    """What the source looks like. Raises Missing when nothing in it does."""
    mongo = {name: await _look(documents, name) for name in await documents.collections()} if documents else {}
    qdrant = list(await points.collections()) if points else []
    largest = max(qdrant, key=lambda each: each.count or 0, default=None)
    payloads = await _payloads(points, largest.name) if points and largest else []
    whose = _owned(mongo, payloads)
    parents = _parents(mongo, whose, payloads)
    vectors = _vectors(largest, payloads, mongo, whose)
    if whose is None and not parents:
        raise Missing("Nothing here looks like documents or passages; write the mapping by hand.", code="nothing_found")
    return Mapping(
        documents=_documents(parents, mongo, payloads), chunks=_chunks(whose, mongo, payloads, parents), vectors=vectors
    )


Records = dict[str, list[Record]]


async def _look(documents: Documents, name: str) -> list[Record]:
    return [record async for batch in documents.read(name, LOOKED_AT) for record in batch]


async def _payloads(points: Points, name: str) -> list[Record]:
    return [{**point.payload, "": point.id} async for batch in points.read(name, LOOKED_AT) for point in batch]


def _has(records: Sequence[Record], names: Sequence[str], wanted: Any = object) -> str:
    """The first of the usual names that at least half the records have, of the wanted type."""
    for name in names:
        found = sum(
            isinstance(fields.find(each, name), wanted) and fields.find(each, name) is not None for each in records
        )
        if records and found * 2 >= len(records):
            return name
    return ""


def _owned(mongo: Records, payloads: Sequence[Record]) -> str | None:
    """Where passages are: a collection of MongoDB, `` for the payloads, `*name` for lists in a collection's records."""
    for name, records in mongo.items():
        if _has(records, LISTS, list):
            return f"*{name}"
    if _has(payloads, TEXTS, str) and _has(payloads, OWNERS):
        return ""
    ranked = [name for name, records in mongo.items() if _has(records, OWNERS) and _has(records, TEXTS, str)]
    usual = [name for name in ranked if any(part in name.lower() for part in ("chunk", "passage", "segment"))]
    return next(iter([*usual, *ranked]), None)


def _parents(mongo: Records, whose: str | None, payloads: Sequence[Record]) -> str:
    """The collection that passages name: most of whose ids they know; else the one that looks like documents."""
    if whose and whose.startswith("*"):
        return whose[1:]
    others = {name: records for name, records in mongo.items() if name != whose}
    passages = payloads if whose == "" else mongo.get(whose or "", [])
    owners = {fields.key(fields.find(each, path)) for each in passages for path in OWNERS} - {""}
    if owners:
        scored = {
            name: sum(fields.key(each.get("_id")) in owners for each in records) for name, records in others.items()
        }
        best = max(scored, key=lambda name: scored[name], default="")
        if best and scored[best]:
            return best
        if whose == "":
            return ""  # payloads that name nothing of MongoDB's tell themselves all there is
    usual = [name for name in others if any(part in name.lower() for part in ("document", "doc", "file", "article"))]
    return next(
        (name for name in [*usual, *others] if _has(others[name], TITLES) or _has(others[name], WHOLE_TEXTS)), ""
    )


def _documents(parents: str, mongo: Records, payloads: Sequence[Record]) -> DocumentFields:
    records = mongo.get(parents, []) if parents else payloads
    tags = tuple(name for name in TAGS if _has(records, (name,)))
    title = _has(records, TITLES, str)
    name = _has(records, NAMES, str)
    return DocumentFields(
        collection=parents,
        title=title,
        name="" if name == title else name,
        text=_has(records, WHOLE_TEXTS, str) if parents else "",
        url=_has(records, URLS, str),
        created=_has(records, CREATED),
        tags=tags,
        into=_has(records, INTO, str) if parents else "",
    )


def _chunks(whose: str | None, mongo: Records, payloads: Sequence[Record], parents: str) -> ChunkFields:
    if whose is None:  # documents that Terrace shall cut itself
        return ChunkFields(source="documents", within="chunks")
    if whose.startswith("*"):
        within = _has(mongo[whose[1:]], LISTS, list)
        parts = [part for each in mongo[whose[1:]] for part in fields.find(each, within) or ()]
        listed: list[Record] = [part for part in parts if isinstance(part, dict)]
        return ChunkFields(source="documents", within=within, **_named(listed))
    records = list(payloads) if whose == "" else mongo[whose]
    owner = _owner(records, mongo.get(parents, []))
    if whose == "":
        return ChunkFields(source="qdrant", document=owner, **_named(records))
    return ChunkFields(source="mongo", collection=whose, document=owner, **_named(records))


def _named(records: Sequence[Record]) -> dict[str, Any]:
    page = _has(records, PAGES)
    from_zero = any(fields.number(fields.find(each, page)) == 0 for each in records) if page else False
    return {
        "text": _has(records, TEXTS, str) or "text",
        "order": _has(records, ORDERS, int | float),
        "page": page,
        "first_page": 0 if from_zero else 1,
        "headings": _has(records, HEADINGS),
    }


def _owner(records: Sequence[Record], parents: Sequence[Record]) -> str:
    """The field that holds ids of the parents, by their values; else by its name."""
    ids = {fields.key(each.get("_id")) for each in parents}
    for name in OWNERS:
        if ids and any(fields.key(fields.find(each, name)) in ids for each in records):
            return name
    return _has(records, OWNERS) or "document_id"


def _vectors(
    largest: PointCollection | None, payloads: Sequence[Record], mongo: Records, whose: str | None
) -> VectorFields:
    if largest is None:
        return VectorFields()
    space = largest.spaces[0].name if largest.spaces else ""
    chunk = ""
    if whose and not whose.startswith("*"):
        ids = {fields.key(each.get("_id")) for each in mongo[whose]}
        if not any(fields.key(each[""]) in ids for each in payloads):
            chunk = next(
                (name for name in CHUNK_IDS if any(fields.key(fields.find(each, name)) in ids for each in payloads)), ""
            )
    return VectorFields(collection=largest.name, name=space, chunk=chunk)
