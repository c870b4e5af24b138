"""Rows of sources and their items. Functions of a session: they run inside `Database.read` or `write`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from sqlalchemy import delete, func, tuple_, update
from sqlmodel import Session, col, select

from terrace.errors import Missing
from terrace.jobs.base import FINAL
from terrace.jobs.tables import JobRow
from terrace.knowledge.sources.base import MAX_FAILURES, Failure, Item, Options, Report, Source
from terrace.knowledge.sources.tables import SourceItemRow, SourceRow
from terrace.knowledge.tables import DocumentRow
from terrace.types import Scope, moment

AT_ONCE = 500
GONE = 2  # runs in a row that must find a page gone before it is taken out


def hash_of(key: str) -> str:
    return sha256(key.encode()).hexdigest()


# -- sources


def get(session: Session, scope: Scope, source_id: str) -> SourceRow:
    query = select(SourceRow).where(SourceRow.tenant_id == scope.tenant, SourceRow.id == source_id)
    if (row := session.exec(query).one_or_none()) is None:
        raise Missing("There is no such source.", code="source_missing")
    return row


def show(session: Session, scope: Scope, source_id: str) -> Source:
    return shown(session, scope, get(session, scope, source_id))


def page(session: Session, scope: Scope, limit: int, cursor: str | None) -> list[Source]:
    query = select(SourceRow).where(SourceRow.tenant_id == scope.tenant)
    if cursor is not None:
        query = query.where(SourceRow.id < cursor)
    return [shown(session, scope, row) for row in session.exec(query.order_by(col(SourceRow.id).desc()).limit(limit))]


def count(session: Session, scope: Scope) -> int:
    return session.exec(select(func.count()).select_from(SourceRow).where(SourceRow.tenant_id == scope.tenant)).one()


def running(session: Session, row: SourceRow) -> bool:
    """Whether its last run has still to end."""
    if row.job_id is None:
        return False
    alive = select(JobRow.id).where(
        JobRow.tenant_id == row.tenant_id, JobRow.id == row.job_id, col(JobRow.state).not_in(FINAL)
    )
    return session.exec(alive).first() is not None


def shown(session: Session, scope: Scope, row: SourceRow) -> Source:
    return Source(
        id=row.id,
        kind=row.kind,  # type: ignore[arg-type]
        name=row.name,
        location=row.location,
        collection=row.collection,
        tags=tuple(row.tags),
        options=options_of(row),
        watch=row.watch,
        schedule_id=row.schedule_id,
        running=running(session, row),
        job_id=row.job_id,
        report=None if row.report is None else _report(row.report),
        documents=kept(session, scope, row.id),
        ran_at=None if row.ran_at is None else moment(row.ran_at),
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
    )


def options_of(row: SourceRow) -> Options:
    given = row.options
    return Options(
        tuple(given.get("include", ())), tuple(given.get("exclude", ())), given.get("depth"), given.get("pages")
    )


def _report(kept: dict[str, Any]) -> Report:
    failures = tuple(Failure(**each) for each in kept.get("failures", ()))
    return Report(**{**kept, "failures": failures, "notes": tuple(kept.get("notes", ()))})


# -- items


def item(session: Session, scope: Scope, source_id: str, key: str) -> SourceItemRow | None:
    query = select(SourceItemRow).where(
        SourceItemRow.tenant_id == scope.tenant,
        SourceItemRow.source_id == source_id,
        SourceItemRow.key_hash == hash_of(key),
    )
    return session.exec(query).one_or_none()


def ensure_item(session: Session, scope: Scope, source_id: str, key: str, depth: int = 0) -> SourceItemRow:
    row = item(session, scope, source_id, key)
    if row is None:
        row = SourceItemRow(source_id=source_id, key_hash=hash_of(key), tenant_id=scope.tenant, key=key, depth=depth)
        session.add(row)
        session.flush()
    return row


def mine(scope: Scope, source_id: str) -> Any:
    """A query of a source's items."""
    return select(SourceItemRow).where(SourceItemRow.tenant_id == scope.tenant, SourceItemRow.source_id == source_id)


def items(
    session: Session, scope: Scope, source_id: str, *, outcome: str | None, limit: int, cursor: str | None
) -> tuple[list[Item], str | None]:
    """In no particular, but a lasting order."""
    get(session, scope, source_id)
    query = mine(scope, source_id).where(SourceItemRow.outcome != "found")
    if outcome is not None:
        query = query.where(SourceItemRow.outcome == outcome)
    if cursor is not None:
        query = query.where(SourceItemRow.key_hash > cursor)
    rows = list(session.exec(query.order_by(col(SourceItemRow.key_hash)).limit(limit + 1)))
    documents = {
        row.id: row
        for row in session.exec(
            select(DocumentRow).where(
                DocumentRow.tenant_id == scope.tenant,
                col(DocumentRow.id).in_([row.document_id for row in rows if row.document_id]),
            )
        )
    }
    following = rows[limit - 1].key_hash if len(rows) > limit else None
    return [_shown_item(row, documents.get(row.document_id or "")) for row in rows[:limit]], following


def _shown_item(row: SourceItemRow, document: DocumentRow | None) -> Item:
    return Item(
        key=row.key,
        outcome=row.outcome,  # type: ignore[arg-type]
        reason=row.reason,
        document_id=None if document is None else document.id,
        owned=row.owned,
        document_state=None if document is None else document.state,
        error=None if document is None else document.error,
        checked_at=None if row.checked_at is None else moment(row.checked_at),
        changed_at=None if row.changed_at is None else moment(row.changed_at),
    )


def list_all(session: Session, scope: Scope, source_id: str, run: str) -> None:
    """Every page known from before is looked at again by this run; those that are gone for good are forgotten."""
    forget_gone(session, scope, source_id, run)
    known = (col(SourceItemRow.tenant_id) == scope.tenant, col(SourceItemRow.source_id) == source_id)
    session.execute(update(SourceItemRow).where(*known).values(listed=run))


def forget_gone(session: Session, scope: Scope, source_id: str, run: str) -> None:
    """What an earlier run took out was told in its report."""
    known = (col(SourceItemRow.tenant_id) == scope.tenant, col(SourceItemRow.source_id) == source_id)
    gone = (col(SourceItemRow.document_id).is_(None), col(SourceItemRow.missing) >= GONE)
    session.execute(delete(SourceItemRow).where(*known, *gone, col(SourceItemRow.run).is_distinct_from(run)))


def forget_item(session: Session, scope: Scope, source_id: str, key: str) -> None:
    """Of something that has no document (any more)."""
    row = item(session, scope, source_id, key)
    if row is not None:
        session.delete(row)


def list_more(
    session: Session, scope: Scope, source_id: str, run: str, found: Iterable[tuple[str, int]], most: int
) -> int:
    """Add addresses (with their depth) that are not known yet, until the source has `most`; how many had no room."""
    depths = dict(found)
    new = unknown(session, scope, source_id, depths)
    room = max(0, most - _count_items(session, scope, source_id)) if new else 0
    session.add_all(
        SourceItemRow(
            source_id=source_id, key_hash=hash_of(key), tenant_id=scope.tenant, key=key, depth=depths[key], listed=run
        )
        for key in new[:room]
    )
    session.flush()
    return len(new) - len(new[:room])


def unknown(session: Session, scope: Scope, source_id: str, keys: Iterable[str]) -> list[str]:
    """Those that are no items of the source yet, each once."""
    hashes = {hash_of(key): key for key in keys}
    known: set[str] = set()
    for part in batched(hashes):
        query = select(SourceItemRow.key_hash).where(
            SourceItemRow.tenant_id == scope.tenant,
            SourceItemRow.source_id == source_id,
            col(SourceItemRow.key_hash).in_(part),
        )
        known.update(session.exec(query))
    return [key for key_hash, key in hashes.items() if key_hash not in known]


def batched(keys: Iterable[str]) -> Iterator[list[str]]:
    """As many at a time as a statement may name."""
    left = list(keys)
    for start in range(0, len(left), AT_ONCE):
        yield left[start : start + AT_ONCE]


def kept(session: Session, scope: Scope, source_id: str) -> int:
    """How many documents the source has."""
    query = select(func.count()).select_from(SourceItemRow)
    mine = (SourceItemRow.tenant_id == scope.tenant, SourceItemRow.source_id == source_id)
    return session.exec(query.where(*mine, col(SourceItemRow.document_id).is_not(None))).one()


def _count_items(session: Session, scope: Scope, source_id: str) -> int:
    query = select(func.count()).select_from(SourceItemRow)
    return session.exec(
        query.where(SourceItemRow.tenant_id == scope.tenant, SourceItemRow.source_id == source_id)
    ).one()


def waiting(session: Session, scope: Scope, source_id: str, run: str, limit: int) -> list[SourceItemRow]:
    """Those this run has still to visit, nearest first."""
    query = mine(scope, source_id).where(SourceItemRow.listed == run, col(SourceItemRow.run).is_distinct_from(run))
    rows = list(session.exec(query.order_by(col(SourceItemRow.depth), col(SourceItemRow.key_hash)).limit(limit)))
    for row in rows:
        session.expunge(row)
    return rows


def progress(session: Session, scope: Scope, source_id: str, run: str) -> tuple[int, int]:
    """(visited, listed) by this run."""
    query = select(func.count()).select_from(SourceItemRow)
    query = query.where(SourceItemRow.tenant_id == scope.tenant, SourceItemRow.source_id == source_id)
    listed = session.exec(query.where(SourceItemRow.listed == run)).one()
    return session.exec(query.where(SourceItemRow.listed == run, SourceItemRow.run == run)).one(), listed


def outcomes(session: Session, scope: Scope, source_id: str, run: str) -> tuple[dict[str, int], tuple[Failure, ...]]:
    """How often each in this run, and what failed."""
    counts = select(SourceItemRow.outcome, func.count()).where(
        SourceItemRow.tenant_id == scope.tenant, SourceItemRow.source_id == source_id, SourceItemRow.run == run
    )
    failed = mine(scope, source_id).where(SourceItemRow.run == run, SourceItemRow.outcome == "failed")
    failures = session.exec(failed.order_by(SourceItemRow.key_hash).limit(MAX_FAILURES))
    return (
        dict(session.exec(counts.group_by(SourceItemRow.outcome)).all()),
        tuple(Failure(each.key, each.reason) for each in failures),
    )


def heir(session: Session, scope: Scope, row: SourceItemRow) -> SourceItemRow | None:
    """Another item that has the same document."""
    query = select(SourceItemRow).where(
        SourceItemRow.tenant_id == scope.tenant, SourceItemRow.document_id == row.document_id
    )
    others = (each for each in session.exec(query.limit(2)) if (each.source_id, each.key_hash) != _identity(row))
    return next(others, None)


def _identity(row: SourceItemRow) -> tuple[str, str]:
    return row.source_id, row.key_hash


def same_text(session: Session, scope: Scope, row: SourceItemRow, text_sha256: str) -> str | None:
    """The address of another page of the source with this very text and a document."""
    query = mine(scope, row.source_id).where(
        SourceItemRow.text_sha256 == text_sha256,
        col(SourceItemRow.document_id).is_not(None),
        SourceItemRow.key_hash != row.key_hash,
    )
    found: SourceItemRow | None = session.exec(query.limit(1)).first()
    return None if found is None else found.key


def forget(session: Session, scope: Scope, source_ids: Sequence[str]) -> None:
    """Sources with their items; documents stay."""
    for table, column in ((SourceItemRow, SourceItemRow.source_id), (SourceRow, SourceRow.id)):
        session.execute(delete(table).where(col(table.tenant_id) == scope.tenant, col(column).in_(source_ids)))


def read_anew(session: Session, scope: Scope, source_id: str) -> None:
    """Whatever is unchanged comes whole once more, so that what it leads to is seen."""
    session.execute(
        update(SourceItemRow)
        .where(col(SourceItemRow.tenant_id) == scope.tenant, col(SourceItemRow.source_id) == source_id)
        .values(etag=None, last_modified=None, lastmod=None)
    )


def after(session: Session, scope: Scope, place: tuple[str, str], limit: int) -> list[tuple[str, str, Item]]:
    """Items of all sources, from `place` (source, item) on."""
    query = select(SourceItemRow).where(
        SourceItemRow.tenant_id == scope.tenant,
        tuple_(col(SourceItemRow.source_id), col(SourceItemRow.key_hash)) > place,
    )
    rows = session.exec(query.order_by(col(SourceItemRow.source_id), col(SourceItemRow.key_hash)).limit(limit))
    return [(row.source_id, row.key_hash, replace(_shown_item(row, None), document_id=row.document_id)) for row in rows]
