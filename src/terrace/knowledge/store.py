"""Rows of documents, collections and tags. Functions of a session: they run inside `Database.read` or `write`."""

from collections.abc import Collection as Keys
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, or_, update
from sqlmodel import Session, col, select

from terrace.accounts.limits.base import Subject
from terrace.errors import Conflict, Invalid, Missing
from terrace.jobs.base import Jobs
from terrace.knowledge.base import Document, Index, Page, Span
from terrace.knowledge.index.filters import called
from terrace.knowledge.naming import collection_name, key
from terrace.knowledge.tables import ChunkRow, CollectionRow, DocumentRow, PageRow, TagRow, TrashRow
from terrace.knowledge.views import DEFAULT_COLLECTION, Collection, StoredChunk, Tag
from terrace.types import Scope, moment, new_id, now

IN_PROGRESS = ("queued", "parsing", "embedding")
MAX_COLLECTIONS = 10_000

# -- collections


def find_collection(session: Session, scope: Scope, id_or_name: str) -> CollectionRow | None:
    wanted = or_(CollectionRow.id == id_or_name, CollectionRow.name_key == key(id_or_name))  # type: ignore[arg-type]
    rows = session.exec(select(CollectionRow).where(CollectionRow.tenant_id == scope.tenant, wanted)).all()
    return next((row for row in rows if row.id == id_or_name), rows[0] if rows else None)


def get_collection(session: Session, scope: Scope, id_or_name: str) -> CollectionRow:
    if (row := find_collection(session, scope, id_or_name)) is None:
        raise Missing("There is no such collection.", code="collection_missing")
    return row


def ensure_collection(session: Session, scope: Scope, id_or_name: str) -> CollectionRow:
    """The collection of this id or name; made when there is none."""
    row = find_collection(session, scope, id_or_name)
    if row is None:
        if id_or_name.startswith("col_"):
            raise Missing("There is no such collection.", code="collection_missing")
        row = _add_collection(session, scope, collection_name(id_or_name))
    return row


def create_collection(session: Session, scope: Scope, name: str) -> Collection:
    if find_collection(session, scope, name) is not None:
        raise Conflict(f"There is a collection called {name!r} already.", code="collection_exists")
    return _shown_collection(_add_collection(session, scope, name), 0)


def _add_collection(session: Session, scope: Scope, name: str) -> CollectionRow:
    count = select(func.count()).select_from(CollectionRow).where(CollectionRow.tenant_id == scope.tenant)
    if session.exec(count).one() >= MAX_COLLECTIONS:
        raise Invalid(f"There may be at most {MAX_COLLECTIONS:,} collections; use tags.", code="too_many_collections")
    row = CollectionRow(id=new_id("col"), tenant_id=scope.tenant, name=name, name_key=key(name), created_at=now())
    session.add(row)
    session.flush()
    return row


def collections(session: Session, scope: Scope, only: str | None = None) -> list[Collection]:
    """By name, each with how many documents it holds."""
    counts = (
        select(DocumentRow.collection_id, func.count().label("documents"))
        .where(DocumentRow.tenant_id == scope.tenant)
        .group_by(col(DocumentRow.collection_id))
        .subquery()
    )
    query = (
        select(CollectionRow, counts.c.documents)
        .join(counts, counts.c.collection_id == CollectionRow.id, isouter=True)
        .where(CollectionRow.tenant_id == scope.tenant)
        .order_by(col(CollectionRow.name_key))
    )
    if only is not None:
        query = query.where(CollectionRow.id == only)
    return [_shown_collection(row, documents or 0) for row, documents in session.exec(query)]


def _shown_collection(row: CollectionRow, documents: int) -> Collection:
    return Collection(row.id, row.name, documents, moment(row.created_at))


def tags(session: Session, scope: Scope) -> list[Tag]:
    query = (
        select(TagRow.tag, func.count())
        .where(TagRow.tenant_id == scope.tenant)
        .group_by(TagRow.tag)
        .order_by(TagRow.tag)
    )
    return [Tag(name, count) for name, count in session.exec(query)]


def changed(session: Session, scope: Scope, *collection_ids: str) -> None:
    """What a search in these collections may find is about to change: who remembers what one found looks again."""
    session.execute(
        update(CollectionRow)
        .where(col(CollectionRow.tenant_id) == scope.tenant, col(CollectionRow.id).in_(collection_ids))
        .values(version=col(CollectionRow.version) + 1)
    )


def versions(session: Session, scope: Scope, names: Sequence[str] = ()) -> list[tuple[str, int]]:
    """(id, version) of these collections (by id or name), of all without names, in the order of their ids."""
    these = called(scope, names) if names else (col(CollectionRow.tenant_id) == scope.tenant,)
    query = select(CollectionRow.id, CollectionRow.version).where(*these)
    return [(id, version) for id, version in session.exec(query.order_by(col(CollectionRow.id)))]


# -- documents


def get(session: Session, scope: Scope, document_id: str) -> DocumentRow:
    query = select(DocumentRow).where(DocumentRow.tenant_id == scope.tenant, DocumentRow.id == document_id)
    if (row := session.exec(query).one_or_none()) is None:
        raise Missing("There is no such document.", code="document_missing")
    return row


def stored(session: Session, subject: Subject) -> tuple[int, int]:
    """How many documents and bytes a tenant has, or a user or key of it has uploaded."""
    query = select(func.count(), func.coalesce(func.sum(col(DocumentRow.bytes)), 0))
    query = query.where(DocumentRow.tenant_id == subject.tenant)
    if subject.kind != "tenant":
        owner = DocumentRow.user_id if subject.kind == "user" else DocumentRow.key_id
        query = query.where(col(owner) == subject.id)
    count, size = session.exec(query).one()
    return int(count), int(size)


def with_content(session: Session, scope: Scope, collection_id: str, sha256: str) -> DocumentRow | None:
    """The document of these very bytes in this collection."""
    return session.exec(
        select(DocumentRow).where(
            DocumentRow.tenant_id == scope.tenant,
            DocumentRow.collection_id == collection_id,
            DocumentRow.sha256 == sha256,
        )
    ).one_or_none()


def find(
    session: Session,
    scope: Scope,
    *,
    collection: str | None,
    tag: str | None,
    state: str | None,
    q: str,
    limit: int,
    cursor: str | None,
) -> list[Document]:
    """Newest first, those older than the document `cursor`."""
    wanted: list[ColumnElement[bool]] = [col(DocumentRow.tenant_id) == scope.tenant]
    if collection is not None:
        found = find_collection(session, scope, collection)
        if found is None:
            return []
        wanted.append(col(DocumentRow.collection_id) == found.id)
    if tag is not None:
        wanted.append(exists().where(col(TagRow.document_id) == DocumentRow.id, col(TagRow.tag) == key(tag)))
    if state is not None:
        wanted.append(col(DocumentRow.state) == state)
    if q:
        wanted.append(col(DocumentRow.name_key).contains(key(q), autoescape=True))
    if cursor is not None:
        wanted.append(col(DocumentRow.id) < cursor)
    rows = session.exec(select(DocumentRow).where(*wanted).order_by(col(DocumentRow.id).desc()).limit(limit)).all()
    return shown(session, scope, rows)


def shown(session: Session, scope: Scope, rows: Sequence[DocumentRow], *, duplicate: bool = False) -> list[Document]:
    """Rows as the API shows them."""
    ids = [row.id for row in rows]
    names = dict(
        session.exec(
            select(CollectionRow.id, CollectionRow.name).where(
                CollectionRow.tenant_id == scope.tenant, col(CollectionRow.id).in_({row.collection_id for row in rows})
            )
        ).all()
    )
    tagged: dict[str, list[str]] = {}
    query = select(TagRow.document_id, TagRow.tag).where(
        TagRow.tenant_id == scope.tenant, col(TagRow.document_id).in_(ids)
    )
    for document_id, tag in session.exec(query.order_by(TagRow.tag)):
        tagged.setdefault(document_id, []).append(tag)
    return [_document(row, names[row.collection_id], tagged.get(row.id, ()), duplicate) for row in rows]


def _document(row: DocumentRow, collection: str, tags: Sequence[str], duplicate: bool) -> Document:
    return Document(
        id=row.id,
        name=row.name,
        title=row.title,
        collection=collection,
        tags=tuple(tags),
        media_type=row.media_type,
        bytes=row.bytes,
        sha256=row.sha256,
        state=row.state,  # type: ignore[arg-type]
        searchable=row.searchable,  # type: ignore[arg-type]
        pages=row.pages,
        chunks=row.chunk_count,
        characters=row.characters,
        warnings=tuple(row.warnings),
        error=row.error,
        job_id=row.job_id,
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
        duplicate=duplicate,
        source_url=row.source_url,
    )


def show(session: Session, scope: Scope, document_id: str) -> Document:
    return shown(session, scope, [get(session, scope, document_id)])[0]


def enqueue(
    session: Session,
    scope: Scope,
    jobs: Jobs,
    row: DocumentRow,
    kind: str,
    *,
    priority: int = 0,
    parent_id: str | None = None,
) -> str:
    """A new job for the document, from now on the only one that may write it."""
    payload = {"document_id": row.id}
    row.job_id = jobs.enqueue(session, scope, kind, payload, priority=priority, parent_id=parent_id)
    row.state, row.error, row.updated_at = "queued", None, now()
    return row.job_id


def originals(session: Session, keys: Keys[str]) -> set[str]:
    """Those of these blobs that are a document's original. Keys are unique over all tenants."""
    return set(session.exec(select(DocumentRow.blob).where(col(DocumentRow.blob).in_(keys))))


def set_tags(session: Session, scope: Scope, document_id: str, tags: Sequence[str]) -> None:
    session.execute(delete(TagRow).where(col(TagRow.tenant_id) == scope.tenant, col(TagRow.document_id) == document_id))
    session.add_all(TagRow(document_id=document_id, tag=tag, tenant_id=scope.tenant) for tag in tags)


def set_name(row: DocumentRow, name: str) -> None:
    row.name = name
    row.name_key = name_key(name, row.title)


def name_key(name: str, title: str) -> str:
    return key(f"{name}\n{title}")


def move(session: Session, scope: Scope, row: DocumentRow, collection: str) -> None:
    """Into another collection. Raises Conflict when the same file is there."""
    target = ensure_collection(session, scope, collection)
    if target.id == row.collection_id:
        return
    if with_content(session, scope, target.id, row.sha256) is not None:
        raise Conflict(f"The same file is in the collection {target.name!r} already.", code="document_exists")
    changed(session, scope, row.collection_id, target.id)
    row.collection_id = target.id


# -- removal


def delete_documents(session: Session, scope: Scope, index: Index, rows: Sequence[DocumentRow]) -> list[str]:
    """Remove documents with all that hangs on them; their blobs go to the trash.

    Returns the jobs that were still reading them.
    """
    changed(session, scope, *{row.collection_id for row in rows})
    for row in rows:
        forget_contents(session, scope, index, row.id)
        trash(session, scope, row.blob, row.text_blob)
        set_tags(session, scope, row.id, ())
        session.execute(
            delete(DocumentRow).where(col(DocumentRow.tenant_id) == scope.tenant, col(DocumentRow.id) == row.id)
        )
    return [row.job_id for row in rows if row.job_id and row.state in IN_PROGRESS]


def delete_collection(session: Session, scope: Scope, index: Index, id_or_name: str) -> list[str]:
    """Remove a collection and its documents; the default one only loses them. Returns jobs as above."""
    collection = get_collection(session, scope, id_or_name)
    rows = session.exec(
        select(DocumentRow).where(DocumentRow.tenant_id == scope.tenant, DocumentRow.collection_id == collection.id)
    ).all()
    jobs = delete_documents(session, scope, index, rows)
    if collection.name_key != DEFAULT_COLLECTION:
        session.execute(
            delete(CollectionRow).where(
                col(CollectionRow.tenant_id) == scope.tenant, col(CollectionRow.id) == collection.id
            )
        )
    return jobs


def forget_contents(session: Session, scope: Scope, index: Index, document_id: str) -> None:
    """Remove a document's chunks and pages, from the index too."""
    index.remove_document(session, scope, document_id)
    session.execute(
        delete(ChunkRow).where(col(ChunkRow.tenant_id) == scope.tenant, col(ChunkRow.document_id) == document_id)
    )
    session.execute(
        delete(PageRow).where(col(PageRow.tenant_id) == scope.tenant, col(PageRow.document_id) == document_id)
    )


def trash(session: Session, scope: Scope, *keys: str | None) -> None:
    """Decide that these blobs go; `trash.empty` carries it out after the commit."""
    session.add_all(TrashRow(key=key, tenant_id=scope.tenant, created_at=now()) for key in keys if key)


# -- contents


def pages(session: Session, scope: Scope, document_id: str) -> list[Page]:
    get(session, scope, document_id)
    query = select(PageRow).where(PageRow.tenant_id == scope.tenant, PageRow.document_id == document_id)
    rows = session.exec(query.order_by(col(PageRow.number)))
    return [Page(row.number, Span(row.start_char, row.end_char)) for row in rows]


def page_at(session: Session, scope: Scope, document_id: str, position: int) -> int | None:
    """The page that holds this character."""
    query = (
        select(PageRow.number)
        .where(PageRow.tenant_id == scope.tenant, PageRow.document_id == document_id, PageRow.start_char <= position)
        .order_by(col(PageRow.number).desc())
    )
    return session.exec(query.limit(1)).first()


def chunks(session: Session, scope: Scope, document_id: str, *, limit: int, after: int) -> list[StoredChunk]:
    """In order, those whose ordinal is above `after`."""
    get(session, scope, document_id)
    query = (
        select(ChunkRow)
        .where(ChunkRow.tenant_id == scope.tenant, ChunkRow.document_id == document_id, ChunkRow.ordinal > after)
        .order_by(col(ChunkRow.ordinal))
        .limit(limit)
    )
    return [
        StoredChunk(row.id, row.ordinal, row.start_char, row.end_char, row.page, tuple(row.headings), row.text)
        for row in session.exec(query)
    ]


def counts(session: Session, scope: Scope, index: Index) -> dict[str, Any]:
    """{documents, bytes, states: {state: n}, chunks, vectors}."""
    query = (
        select(DocumentRow.state, func.count(), func.coalesce(func.sum(col(DocumentRow.bytes)), 0))
        .where(DocumentRow.tenant_id == scope.tenant)
        .group_by(DocumentRow.state)
    )
    by_state = list(session.exec(query))
    return {
        "documents": sum(count for _, count, _ in by_state),
        "bytes": sum(size for _, _, size in by_state),
        "states": {state: count for state, count, _ in by_state},
        **index.counts(session, scope),
    }
