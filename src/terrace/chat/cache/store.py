"""Rows in, words out: sync functions for `Database.read` and `write`, each within its scope."""

from collections.abc import Sequence

from sqlalchemy import delete, func, text, update
from sqlmodel import Session, col, select

from terrace.chat.cache.base import Asking, Candidate, Found, Kind, Place, Tally, Written
from terrace.chat.cache.keys import key_of, library_of
from terrace.chat.cache.tables import CachedAnswerRow, CacheTallyRow
from terrace.knowledge.store import versions
from terrace.telemetry.calls import PICODOLLARS
from terrace.types import Scope, moment

CANDIDATES = 2000  # of the latest questions that one is compared with

COUNT = text(
    "INSERT INTO cache_tallies (tenant_id, exact_hits, semantic_hits, tokens, money) "
    "VALUES (:tenant, :exact, :semantic, :tokens, :money) ON CONFLICT (tenant_id) DO UPDATE SET "
    "exact_hits = cache_tallies.exact_hits + excluded.exact_hits, "
    "semantic_hits = cache_tallies.semantic_hits + excluded.semantic_hits, "
    "tokens = cache_tallies.tokens + excluded.tokens, money = cache_tallies.money + excluded.money"
)


def library(session: Session, scope: Scope, asking: Asking) -> str:
    """The state of the documents that an answer may rest on."""
    return "" if asking.use_rag is False else library_of(versions(session, scope, asking.collections))


def exact(session: Session, scope: Scope, place: Place, since: float) -> Found | None:
    keys = [key_of(context, place.asking.question) for context in place.contexts]
    return _read(session, scope, place, keys, since, "exact")


def candidates(session: Session, scope: Scope, place: Place, since: float) -> list[Candidate]:
    """What was asked lately in the same context of the same documents."""
    query = select(CachedAnswerRow.key, CachedAnswerRow.question, CachedAnswerRow.vector).where(
        CachedAnswerRow.tenant_id == scope.tenant,
        CachedAnswerRow.library == place.library,
        col(CachedAnswerRow.written_at) >= since,
        col(CachedAnswerRow.context).in_(place.contexts),
        CachedAnswerRow.embedder == place.embedder,
        col(CachedAnswerRow.vector).is_not(None),
    )
    rows = session.exec(query.order_by(col(CachedAnswerRow.written_at).desc()).limit(CANDIDATES))
    return [Candidate(key, question, vector) for key, question, vector in rows if vector is not None]


def read(session: Session, scope: Scope, place: Place, key: str, since: float) -> Found | None:
    """One of the candidates, if it is still good."""
    return _read(session, scope, place, [key], since, "semantic")


def _read(session: Session, scope: Scope, place: Place, keys: Sequence[str], since: float, kind: Kind) -> Found | None:
    """By the key alone: told of more, a database may look through everything that is of this age."""
    mine = (CachedAnswerRow.tenant_id == scope.tenant, col(CachedAnswerRow.key).in_(keys))
    rows = session.exec(select(CachedAnswerRow).where(*mine))
    good = (row for row in rows if row.library == place.library and row.written_at >= since)
    return next((_found(row, kind) for row in good), None)


def keep(session: Session, scope: Scope, place: Place, written: Written, at: float, most: int, since: float) -> None:
    """In the place of what was there; the tenant's oldest go when there are too many."""
    context = place.own if place.shared is None or not written.sources else place.shared
    key = key_of(context, place.asking.question)
    mine = col(CachedAnswerRow.tenant_id) == scope.tenant
    keys = [key_of(each, place.asking.question) for each in place.contexts]
    session.execute(delete(CachedAnswerRow).where(mine, col(CachedAnswerRow.key).in_(keys)))
    session.execute(delete(CachedAnswerRow).where(mine, col(CachedAnswerRow.written_at) < since))
    session.add(
        CachedAnswerRow(
            tenant_id=scope.tenant, key=key, context=context, library=place.library, user_id=scope.user,
            question=place.asking.question, vector=place.vector, embedder=place.embedder, response=written.response,
            sources=written.sources, model=written.model, input_tokens=written.input_tokens,
            output_tokens=written.output_tokens, cost=written.cost, written_at=at,
        )
    )  # fmt: skip
    session.flush()
    if (beyond := _count(session, scope) - most) > 0:
        oldest = select(CachedAnswerRow.key).where(mine).order_by(col(CachedAnswerRow.written_at)).limit(beyond)
        session.execute(delete(CachedAnswerRow).where(mine, col(CachedAnswerRow.key).in_(session.exec(oldest).all())))


def count_hit(session: Session, scope: Scope, found: Found) -> None:
    answer = found.answer
    session.execute(
        update(CachedAnswerRow)
        .where(col(CachedAnswerRow.tenant_id) == scope.tenant, col(CachedAnswerRow.key) == found.key)
        .values(hits=col(CachedAnswerRow.hits) + 1)
    )
    session.execute(
        COUNT,
        {
            "tenant": scope.tenant,
            "exact": int(found.kind == "exact"),
            "semantic": int(found.kind == "semantic"),
            "tokens": answer.input_tokens + answer.output_tokens,
            "money": answer.cost or 0,
        },
    )


def tally(session: Session, scope: Scope, since: float) -> Tally:
    row = session.get(CacheTallyRow, scope.tenant) or CacheTallyRow(tenant_id=scope.tenant)
    written_at = col(CachedAnswerRow.written_at)
    query = select(func.count(), func.min(written_at), func.max(written_at))
    good = (CachedAnswerRow.tenant_id == scope.tenant, written_at >= since)
    entries, oldest, newest = session.exec(query.where(*good)).one()
    return Tally(
        entries=entries,
        hits=row.exact_hits + row.semantic_hits,
        exact_hits=row.exact_hits,
        semantic_hits=row.semantic_hits,
        saved_tokens=row.tokens,
        saved_money=row.money / PICODOLLARS,
        oldest=None if oldest is None else moment(oldest),
        newest=None if newest is None else moment(newest),
    )


def clear(session: Session, scope: Scope) -> int:
    """Forget every answer; how many there were."""
    count = _count(session, scope)
    session.execute(delete(CachedAnswerRow).where(col(CachedAnswerRow.tenant_id) == scope.tenant))
    return count


def _count(session: Session, scope: Scope) -> int:
    mine = CachedAnswerRow.tenant_id == scope.tenant
    return session.exec(select(func.count()).select_from(CachedAnswerRow).where(mine)).one()


def _found(row: CachedAnswerRow, kind: Kind) -> Found:
    written = Written(row.response, row.sources, row.model, row.input_tokens, row.output_tokens, row.cost)
    return Found(row.key, kind, written, row.written_at)
