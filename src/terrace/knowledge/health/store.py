"""Reports, and what only a check of a tenant's corpus asks. Functions of a session."""

from dataclasses import asdict
from typing import Any

import msgspec
from sqlalchemy import delete, func, text, update
from sqlmodel import Session, col, select

from terrace.jobs.base import FINAL
from terrace.jobs.tables import JobRow
from terrace.knowledge.health.base import EXAMPLES, Example, Found, Past, Report
from terrace.knowledge.health.tables import ReportRow, RetrievalRow, WatchRow
from terrace.knowledge.sources.tables import SourceItemRow
from terrace.knowledge.tables import ChunkRow, DocumentRow
from terrace.types import Scope, moment, new_id

CHECK = "index.health"
KEPT_REPORTS = 200
LONG = 30 * 86_400.0  # seconds without being shown or found
MOST_ALIKE = 50_000  # passages of documents of one length that are compared

COUNTS = text(
    "SELECT r.counts FROM corpus_reports r WHERE r.id IN (SELECT max(id) FROM corpus_reports GROUP BY tenant_id)"
)


# -- what is found


def duplicates(session: Session, scope: Scope) -> tuple[list[Found], set[str], bool]:
    """Documents whose passages are, one by one, another's; the ids of those with an older twin; whether all were
    compared."""
    groups: dict[tuple[str, ...], list[str]] = {}
    hashes, whole = _hashes(session, scope)
    for document, its in hashes.items():
        groups.setdefault(tuple(its), []).append(document)
    twins = [sorted(group) for group in groups.values() if len(group) > 1]  # ids grow with time
    rows = _rows(session, scope, [each for group in twins for each in group])
    here, elsewhere = [], []
    for group in twins:
        oldest: dict[str, DocumentRow] = {}
        first = rows[group[0]]
        for row in (rows[each] for each in group):
            twin = oldest.setdefault(row.collection_id, row)
            if twin is not row:
                here.append(Example(row.id, row.name, f"The same text as {twin.name!r} ({twin.id})."))
            elif row is not first:
                elsewhere.append(Example(row.id, row.name, f"The same text as {first.name!r} ({first.id})."))
    found = [Found("duplicate", len(here), here), Found("duplicate_elsewhere", len(elsewhere), elsewhere)]
    return found, {each.id for each in (*here, *elsewhere)}, whole


def _hashes(session: Session, scope: Scope) -> tuple[dict[str, list[str]], bool]:
    """The hashes of their passages, of documents that are as long as another and have as many."""
    mine = (col(DocumentRow.tenant_id) == scope.tenant, col(DocumentRow.chunk_count) > 0)
    sizes = (col(DocumentRow.characters), col(DocumentRow.chunk_count))
    twice = select(*sizes).where(*mine).group_by(*sizes).having(func.count() > 1).subquery()
    query = (
        select(ChunkRow.document_id, ChunkRow.text_sha256)
        .join(DocumentRow, col(DocumentRow.id) == ChunkRow.document_id)
        .join(
            twice,
            (twice.c.characters == DocumentRow.characters) & (twice.c.chunk_count == DocumentRow.chunk_count),
        )
        .where(ChunkRow.tenant_id == scope.tenant, *mine)
        .order_by(col(ChunkRow.document_id), col(ChunkRow.ordinal))
        .limit(MOST_ALIKE)
    )
    hashes: dict[str, list[str]] = {}
    count = 0
    for document, its in session.exec(query):
        hashes.setdefault(document, []).append(its)
        count += 1
    whole = count < MOST_ALIKE
    if not whole and hashes:
        hashes.popitem()  # it may be cut off
    return hashes, whole


def _rows(session: Session, scope: Scope, ids: list[str]) -> dict[str, DocumentRow]:
    rows: dict[str, DocumentRow] = {}
    for start in range(0, len(ids), 1000):
        query = select(DocumentRow).where(
            DocumentRow.tenant_id == scope.tenant, col(DocumentRow.id).in_(ids[start : start + 1000])
        )
        rows |= {row.id: row for row in session.exec(query)}
    return rows


def named(session: Session, scope: Scope, ids: list[str]) -> dict[str, str]:
    """What documents are called."""
    return {row.id: row.name for row in _rows(session, scope, ids).values()}


def stale(session: Session, scope: Scope, at: float) -> Found:
    """Brought by a source that has not shown them for long."""
    query = (
        select(DocumentRow.id, DocumentRow.name, func.max(SourceItemRow.checked_at))
        .join(SourceItemRow, col(SourceItemRow.document_id) == DocumentRow.id)
        .where(
            DocumentRow.tenant_id == scope.tenant,
            SourceItemRow.tenant_id == scope.tenant,
            col(SourceItemRow.checked_at).is_not(None),
        )
        .group_by(col(DocumentRow.id), col(DocumentRow.name))
        .having(func.max(SourceItemRow.checked_at) < at - LONG)
    )
    rows = session.exec(query).all()
    told = [Example(id, name, f"Last seen on {moment(seen or 0):%Y-%m-%d}.") for id, name, seen in rows[:EXAMPLES]]
    return Found("stale", len(rows), told)


def never_retrieved(session: Session, scope: Scope, at: float, since: float) -> Found:
    """Here for long, and no search has found them since; nothing where nobody searches."""
    searched = session.exec(select(RetrievalRow.times).where(RetrievalRow.tenant_id == scope.tenant).limit(1)).first()
    if searched is None or since > at - LONG:
        return Found("never_retrieved", 0, [])
    found = select(RetrievalRow.document_id).where(
        RetrievalRow.tenant_id == scope.tenant, RetrievalRow.last_at > at - LONG
    )
    unread = (
        col(DocumentRow.tenant_id) == scope.tenant,
        col(DocumentRow.state) == "ready",
        col(DocumentRow.created_at) < at - LONG,
        col(DocumentRow.id).not_in(found),
    )
    count = session.exec(select(func.count()).select_from(DocumentRow).where(*unread)).one()
    query = select(DocumentRow.id, DocumentRow.name).where(*unread).order_by(col(DocumentRow.id)).limit(EXAMPLES)
    return Found("never_retrieved", count, [Example(id, name) for id, name in session.exec(query)])


# -- reports


def seen(session: Session, scope: Scope, model: str) -> str:
    """The corpus as one would see a change of it."""
    query = select(func.count(), func.max(DocumentRow.updated_at)).where(DocumentRow.tenant_id == scope.tenant)
    count, latest = session.exec(query).one()
    return f"{count}/{latest}/{model}"


def documents(session: Session, scope: Scope) -> int:
    return session.exec(
        select(func.count()).select_from(DocumentRow).where(DocumentRow.tenant_id == scope.tenant)
    ).one()


def tenants(session: Session) -> list[str]:
    """Whoever has documents, or had when last looked at."""
    known = set(session.exec(select(DocumentRow.tenant_id).distinct()))
    return sorted(known | set(session.exec(select(WatchRow.tenant_id))))


def watched(session: Session, scope: Scope) -> WatchRow | None:
    return session.exec(select(WatchRow).where(WatchRow.tenant_id == scope.tenant)).one_or_none()


def watch(session: Session, scope: Scope, at: float) -> float:
    """Since when; from now on, if nobody did."""
    row = watched(session, scope)
    if row is None:
        row = WatchRow(tenant_id=scope.tenant, since=at, seen="", checked_at=0.0)
        session.add(row)
    known = select(DocumentRow.id).where(DocumentRow.tenant_id == scope.tenant)
    session.execute(
        delete(RetrievalRow).where(
            col(RetrievalRow.tenant_id) == scope.tenant, col(RetrievalRow.document_id).not_in(known)
        )
    )
    return row.since


def keep(session: Session, scope: Scope, report: Report, as_seen: str) -> None:
    """The latest report, those before as counts, the oldest not at all."""
    at = report.checked_at.timestamp()
    mine = col(ReportRow.tenant_id) == scope.tenant
    session.execute(update(ReportRow).where(mine, col(ReportRow.report).is_not(None)).values(report=None))
    session.add(
        ReportRow(
            id=new_id("rep"),
            tenant_id=scope.tenant,
            checked_at=at,
            counts={each.kind: each.count for each in report.findings},
            report=msgspec.to_builtins(asdict(report)),
        )
    )
    session.flush()
    oldest = session.exec(select(ReportRow.id).where(mine).order_by(col(ReportRow.id).desc()).offset(KEPT_REPORTS - 1))
    if (edge := oldest.first()) is not None:
        session.execute(delete(ReportRow).where(mine, col(ReportRow.id) < edge))
    session.execute(update(WatchRow).where(col(WatchRow.tenant_id) == scope.tenant).values(seen=as_seen, checked_at=at))


def latest(session: Session, scope: Scope, history: int) -> tuple[Report | None, list[Past]]:
    """Newest first."""
    query = select(ReportRow).where(ReportRow.tenant_id == scope.tenant).order_by(col(ReportRow.id).desc())
    rows = session.exec(query.limit(history)).all()
    report = msgspec.convert(rows[0].report, Report) if rows and rows[0].report is not None else None
    return report, [Past(moment(row.checked_at), row.counts) for row in rows]


def totals(session: Session) -> dict[str, int]:
    """The latest counts by kind, over all tenants."""
    sums: dict[str, int] = {}
    for counts in session.execute(COUNTS).scalars():
        decoded: dict[str, Any] = msgspec.json.decode(counts) if isinstance(counts, str) else counts
        for kind, count in decoded.items():
            sums[kind] = sums.get(kind, 0) + count
    return sums


def going(session: Session, scope: Scope) -> str | None:
    """The tenant's check or repair that has not ended."""
    query = select(JobRow.id).where(
        JobRow.tenant_id == scope.tenant, JobRow.kind == CHECK, col(JobRow.state).not_in(FINAL)
    )
    return session.exec(query.limit(1)).first()
