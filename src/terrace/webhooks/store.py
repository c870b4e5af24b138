"""Endpoints and the log of deliveries: functions of a session."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import delete, text
from sqlmodel import Session, col, func, select

from terrace.accounts.store import plain
from terrace.errors import Missing
from terrace.outbound import redacted
from terrace.types import Scope, moment
from terrace.webhooks.base import Attempt, Delivery, DeliveryDetail, DeliveryState, Endpoint
from terrace.webhooks.outbox import ONCE
from terrace.webhooks.tables import DeliveryRow, EndpointRow, SignerRow
from terrace.webhooks.verdicts import BACKOFF, Tried, next_try

MAX_TRIES = 50  # remembered of one delivery
DEAD_AFTER = 5 * 86_400.0  # seconds of nothing but failures, then an endpoint is switched off
REMOVED = 500  # deliveries removed in one transaction

WANTING = text("SELECT id, events FROM webhook_endpoints WHERE tenant_id = :tenant AND enabled ORDER BY id")
DUE = text(
    "SELECT id, url, event_id, type, body FROM webhook_deliveries WHERE tenant_id = :tenant AND lane = :lane "
    "AND state = 'queued' AND next_at <= :now ORDER BY next_at, id LIMIT :limit"
)
REACHED = text(
    "UPDATE webhook_endpoints SET failing_since = NULL WHERE id = :lane AND tenant_id = :tenant "
    "AND failing_since IS NOT NULL"
)
FAILING = text(
    "UPDATE webhook_endpoints SET failing_since = :at WHERE id = :lane AND tenant_id = :tenant "
    "AND failing_since IS NULL"
)
SWITCH_OFF = text(
    "UPDATE webhook_endpoints SET enabled = :no, disabled_reason = :why, updated_at = :at "
    "WHERE id = :lane AND tenant_id = :tenant AND enabled RETURNING id"
)
LONG_DEAD = text(
    "SELECT failing_since FROM webhook_endpoints WHERE id = :lane AND tenant_id = :tenant AND failing_since <= :since"
)
STALLED = text(
    "SELECT DISTINCT waiting.tenant_id, waiting.lane, couriers.job_id FROM webhook_deliveries AS waiting "
    "LEFT JOIN webhook_couriers AS couriers ON couriers.tenant_id = waiting.tenant_id AND couriers.lane = waiting.lane "
    f"WHERE waiting.state = 'queued' AND waiting.next_at < :before AND (waiting.lane LIKE '{ONCE}%' OR EXISTS "
    "(SELECT 1 FROM webhook_endpoints AS endpoint WHERE endpoint.id = waiting.lane AND endpoint.enabled))"
)
OLD = text(f"SELECT id FROM webhook_deliveries WHERE created_at < :before ORDER BY created_at LIMIT {REMOVED}")


@dataclass(frozen=True, slots=True)
class Parcel:
    """A delivery that is due."""

    id: str
    url: str
    event_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """What a courier takes along: parcels, and the sealed secrets that sign them."""

    parcels: Sequence[Parcel]
    secrets: Sequence[str]


# -- endpoints


def wanting(session: Session, tenant: str) -> list[tuple[str, tuple[str, ...]]]:
    """(id, filters) of each endpoint that is switched on."""
    rows = session.execute(WANTING, {"tenant": tenant})
    return [(row.id, tuple(_decoded(row.events))) for row in rows]


def endpoint(session: Session, scope: Scope, endpoint_id: str) -> EndpointRow:
    """Raises Missing."""
    wanted = (col(EndpointRow.id) == plain(endpoint_id), col(EndpointRow.tenant_id) == scope.tenant)
    row = session.exec(select(EndpointRow).where(*wanted)).one_or_none()
    if row is None:
        raise Missing("There is no such webhook endpoint.", code="no_such_webhook")
    return row


def endpoints(session: Session, scope: Scope, limit: int, cursor: str | None) -> list[EndpointRow]:
    wanted = [col(EndpointRow.tenant_id) == scope.tenant]
    if cursor is not None:
        wanted.append(col(EndpointRow.id) < plain(cursor))
    newest = select(EndpointRow).where(*wanted).order_by(col(EndpointRow.id).desc())
    return list(session.exec(newest.limit(limit)).all())


def count(session: Session, scope: Scope) -> int:
    mine = select(func.count()).select_from(EndpointRow).where(EndpointRow.tenant_id == scope.tenant)
    return session.exec(mine).one()


def signer(session: Session, tenant: str) -> str | None:
    """The sealed secret of deliveries to addresses named for one event."""
    row = session.get(SignerRow, tenant)
    return None if row is None else row.secret


# -- the log


def delivery(session: Session, scope: Scope, endpoint_id: str, delivery_id: str) -> tuple[DeliveryRow, EndpointRow]:
    """Raises Missing."""
    to = endpoint(session, scope, endpoint_id)
    wanted = (
        col(DeliveryRow.id) == plain(delivery_id),
        col(DeliveryRow.tenant_id) == scope.tenant,
        col(DeliveryRow.lane) == to.id,
    )
    row = session.exec(select(DeliveryRow).where(*wanted)).one_or_none()
    if row is None:
        raise Missing("There is no such delivery. It may have been removed after its time.", code="no_such_delivery")
    return row, to


def deliveries(
    session: Session, scope: Scope, endpoint_id: str, state: DeliveryState | None, limit: int, cursor: str | None
) -> list[Delivery]:
    """Newest first. Raises Missing."""
    to = endpoint(session, scope, endpoint_id)
    wanted = [col(DeliveryRow.tenant_id) == scope.tenant, col(DeliveryRow.lane) == to.id]
    if state is not None:
        wanted.append(col(DeliveryRow.state) == state)
    if cursor is not None:
        wanted.append(col(DeliveryRow.id) < plain(cursor))
    newest = select(DeliveryRow).where(*wanted).order_by(col(DeliveryRow.id).desc())
    return [to_delivery(row, to) for row in session.exec(newest.limit(limit)).all()]


# -- for couriers


def load(session: Session, tenant: str, lane: str, at: float, limit: int) -> Load:
    """What is due now: nothing where the endpoint is gone or switched off."""
    scope = Scope(tenant)
    if lane.startswith(ONCE):
        url, secrets = "", [signer(session, tenant)]
    else:
        try:
            to = endpoint(session, scope, lane)
        except Missing:
            return Load([], [])
        if not to.enabled:
            return Load([], [])
        url, secrets = to.url, [to.secret, *good_previous(to, at)]
    rows = session.execute(DUE, {"tenant": tenant, "lane": lane, "now": at, "limit": limit}).all()
    parcels = [Parcel(row.id, row.url or url, row.event_id, row.body.encode()) for row in rows]
    return Load(parcels, [each for each in secrets if each is not None])


def good_previous(row: EndpointRow, at: float) -> list[str]:
    good = row.previous_secret is not None and row.previous_until is not None and row.previous_until > at
    return [row.previous_secret] if good and row.previous_secret is not None else []


def record(
    session: Session, tenant: str, lane: str, tries: Sequence[Tried], backoff: Sequence[float] = BACKOFF
) -> bool:
    """Write down what became of them. Whether the endpoint was switched off for it."""
    ids = [each.delivery_id for each in tries]
    mine = select(DeliveryRow).where(DeliveryRow.tenant_id == tenant, col(DeliveryRow.id).in_(ids))
    rows = {row.id: row for row in session.exec(mine)}
    for each in tries:
        row = rows.get(each.delivery_id)
        if row is not None and row.state == "queued":
            _note(row, each, backoff)
            session.add(row)
    session.flush()
    return not lane.startswith(ONCE) and _judge(session, tenant, lane, tries)


def _note(row: DeliveryRow, tried: Tried, backoff: Sequence[float]) -> None:
    row.attempts += 1
    row.tries = _extended(row.tries, tried)
    row.answer = tried.answer
    if tried.delivered:
        row.state, row.next_at = "delivered", None
    else:
        row.failures += 1
        row.next_at = None if tried.gone else next_try(tried, row.failures, row.until, backoff)
        row.state = "dead" if row.next_at is None else "queued"
    row.finished_at = tried.at + tried.seconds if row.next_at is None else None


def _judge(session: Session, tenant: str, lane: str, tries: Sequence[Tried]) -> bool:
    """What this says about the endpoint itself."""
    where: dict[str, Any] = {"tenant": tenant, "lane": lane}
    at = max(each.at for each in tries)
    gone = any(each.gone for each in tries)
    if any(each.delivered for each in tries):
        session.execute(REACHED, where)
    else:
        session.execute(FAILING, {**where, "at": at})
    if gone:
        why = "It answered 410 Gone: it wants no more events. Switch it on again if that was a mistake."
    elif session.execute(LONG_DEAD, {**where, "since": at - DEAD_AFTER}).first() is not None:
        last = next((each.error for each in reversed(tries) if each.error), "")
        why = f"For five days nothing reached it, so it was switched off. {last} Mend that and switch it on again."
    else:
        return False
    return session.execute(SWITCH_OFF, {**where, "no": False, "why": why, "at": at}).first() is not None


def remove_old(session: Session, before: float) -> int:
    """One batch of what was put in before then; returns how many, REMOVED when there may be more."""
    ids = list(session.execute(OLD, {"before": before}).scalars())
    if ids:
        session.execute(delete(DeliveryRow).where(col(DeliveryRow.id).in_(ids)))
    return len(ids)


def stalled(session: Session, before: float) -> list[tuple[str, str, str | None]]:
    """(tenant, lane, courier) where something should have gone out before then."""
    return [(row.tenant_id, row.lane, row.job_id) for row in session.execute(STALLED, {"before": before})]


# -- as words


def to_endpoint(row: EndpointRow) -> Endpoint:
    return Endpoint(
        id=row.id,
        url=row.url,
        description=row.description,
        events=tuple(row.events),
        enabled=row.enabled,
        disabled_reason=row.disabled_reason,
        failing_since=None if row.failing_since is None else moment(row.failing_since),
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
    )


def to_delivery(row: DeliveryRow, to: EndpointRow) -> Delivery:
    last = _decoded(row.tries)[-1] if row.attempts else {}
    return Delivery(
        id=row.id,
        event_id=row.event_id,
        type=row.type,
        url=redacted(row.url or to.url),
        state=_state(row.state),
        attempts=row.attempts,
        status=last.get("status"),
        error=last.get("error"),
        duration=last.get("seconds"),
        created_at=moment(row.created_at),
        last_at=moment(last["at"]) if last else None,
        next_at=moment(row.next_at) if row.next_at is not None and to.enabled else None,
        finished_at=None if row.finished_at is None else moment(row.finished_at),
    )


def to_detail(row: DeliveryRow, to: EndpointRow) -> DeliveryDetail:
    tries = tuple(
        Attempt(moment(each["at"]), each["status"], each["seconds"], each["error"]) for each in _decoded(row.tries)
    )
    return DeliveryDetail(to_delivery(row, to), _decoded(row.body), row.answer, tries)


def exported(row: DeliveryRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "to": row.lane,
        "event_id": row.event_id,
        "state": row.state,
        "body": _decoded(row.body),
        "answer": row.answer,
        "tries": _decoded(row.tries),
    }


def _state(name: str) -> DeliveryState:
    return "delivered" if name == "delivered" else "dead" if name == "dead" else "queued"


def _extended(tries: str, tried: Tried) -> str:
    one = {"at": tried.at, "status": tried.status, "seconds": round(tried.seconds, 3), "error": tried.error}
    return msgspec.json.encode([*_decoded(tries), one][-MAX_TRIES:]).decode()


def _decoded(value: Any) -> Any:
    """JSON as a database hands it over: text, or read already."""
    return msgspec.json.decode(value) if isinstance(value, str) else value
