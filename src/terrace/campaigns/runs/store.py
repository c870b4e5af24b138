"""Campaigns and their messages, read. Functions of a session."""

from typing import Any

import msgspec
from sqlalchemy import RowMapping, text
from sqlmodel import Session, col, select

from terrace.campaigns.runs.base import Addressee, Campaign, Counts, Message, MessageState, Reason
from terrace.campaigns.runs.tables import CampaignRow
from terrace.errors import Missing
from terrace.telemetry.calls import PICODOLLARS
from terrace.types import Scope, moment, now

PACE = 100  # messages that the pace is told from

SHOWN = (
    "SELECT m.*, c.id AS person, c.key, c.name, c.email FROM campaign_messages AS m "
    "LEFT JOIN contacts AS c ON c.id = m.contact_id AND c.tenant_id = m.tenant_id "
    "WHERE m.tenant_id = :tenant AND m.campaign_id = :campaign"
)
PACED = text(
    "SELECT finished_at FROM campaign_messages WHERE campaign_id = :id AND seq IS NOT NULL AND seq <= :seq "
    "ORDER BY seq DESC LIMIT 1"
)

_reason = msgspec.json.Decoder(Reason)


def find(session: Session, scope: Scope, campaign_id: str) -> CampaignRow:
    """Raises Missing."""
    query = select(CampaignRow).where(CampaignRow.tenant_id == scope.tenant, CampaignRow.id == campaign_id)
    if (row := session.exec(query).one_or_none()) is None:
        raise Missing("There is no such campaign.", code="campaign_missing")
    return row


def get(session: Session, scope: Scope, campaign_id: str) -> Campaign:
    """Raises Missing."""
    return told(session, find(session, scope, campaign_id))


def page(session: Session, scope: Scope, limit: int, cursor: str | None) -> tuple[list[Campaign], str | None]:
    """Newest first."""
    query = select(CampaignRow).where(CampaignRow.tenant_id == scope.tenant)
    if cursor is not None:
        query = query.where(col(CampaignRow.id) < cursor)
    rows = session.exec(query.order_by(col(CampaignRow.id).desc()).limit(limit + 1)).all()
    return [told(session, row) for row in rows[:limit]], (rows[limit - 1].id if len(rows) > limit else None)


def pinned(session: Session, scope: Scope) -> set[str]:
    """Templates that campaigns have pinned a version of."""
    return set(session.exec(select(CampaignRow.template_id).where(CampaignRow.tenant_id == scope.tenant)).all())


def told(session: Session, row: CampaignRow) -> Campaign:
    waiting = row.total - row.writing - row.done - row.failed - row.skipped
    pace = _pace(session, row)
    left = waiting + row.writing
    return Campaign(
        id=row.id,
        name=row.name,
        state=row.state,  # type: ignore[arg-type]
        reason=reason(row.reason),
        list_id=row.list_id,
        template_id=row.template_id,
        template_version=row.template_version,
        mode=row.mode,  # type: ignore[arg-type]
        model=row.model,
        options=row.options or {},
        collection=row.collection,
        budget=None if row.budget is None else row.budget / PICODOLLARS,
        concurrency=row.concurrency,
        start_at=_moment(row.start_at),
        webhook=row.webhook,
        counts=Counts(row.total, waiting, row.writing, row.done, row.failed, row.skipped, row.approved),
        cost=row.spent / PICODOLLARS,
        unpriced=row.unpriced,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        per_second=pace,
        eta=left / pace if pace and row.state == "running" else None,
        job_id=row.job_id,
        preview=row.preview,
        created_by=row.user_id,
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
        started_at=_moment(row.started_at),
        finished_at=_moment(row.finished_at),
    )


def messages(
    session: Session,
    scope: Scope,
    campaign_id: str,
    *,
    state: MessageState | None = None,
    approved: bool | None = None,
    limit: int,
    cursor: str | None = None,
) -> list[Message]:
    """In the order of the contacts, those after the message `cursor`."""
    conditions = ""
    if state is not None:
        conditions += " AND m.state = :state"
    if approved is not None:
        conditions += f" AND m.approved_at IS {'NOT ' if approved else ''}NULL"
    if cursor is not None:
        conditions += " AND m.id > :cursor"
    values = {"tenant": scope.tenant, "campaign": campaign_id, "state": state, "cursor": cursor, "limit": limit}
    rows = session.execute(text(f"{SHOWN}{conditions} ORDER BY m.id LIMIT :limit"), values).mappings()
    return [message_of(row) for row in rows]


def message(session: Session, scope: Scope, campaign_id: str, message_id: str) -> Message:
    """Raises Missing."""
    values = {"tenant": scope.tenant, "campaign": campaign_id, "id": message_id}
    row = session.execute(text(f"{SHOWN} AND m.id = :id"), values).mappings().first()
    if row is None:
        raise Missing("There is no such message in this campaign.", code="message_missing")
    return message_of(row)


def ended_after(session: Session, scope: Scope, campaign_id: str, seq: int, limit: int) -> list[tuple[int, Message]]:
    """Messages as they ended, with where each stands in the feed."""
    values = {"tenant": scope.tenant, "campaign": campaign_id, "seq": seq, "limit": limit}
    rows = session.execute(text(f"{SHOWN} AND m.seq > :seq ORDER BY m.seq LIMIT :limit"), values).mappings().all()
    return [(row["seq"], message_of(row)) for row in rows]


def message_of(row: RowMapping) -> Message:
    return Message(
        id=row["id"],
        campaign_id=row["campaign_id"],
        contact=Addressee(row["contact_id"], row["key"] or "", row["name"] or "", row["email"] or ""),
        state=row["state"],
        text=row["text"],
        sources=msgspec.json.decode(row["sources"]) if row["sources"] else [],
        model=row["model"],
        error=reason(row["error"]),
        cost=row["cost"] / PICODOLLARS,
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        edited_at=_moment(row["edited_at"]),
        approved_at=_moment(row["approved_at"]),
        finished_at=_moment(row["finished_at"]),
        job_id=row["job_id"],
    )


def reason(told: str | None) -> Reason | None:
    return None if told is None else _reason.decode(told)


def _pace(session: Session, row: CampaignRow) -> float | None:
    """Messages a second, lately."""
    if row.state != "running" or row.seq < 2:
        return None
    since = session.execute(PACED, {"id": row.id, "seq": max(1, row.seq - PACE)}).scalar()
    if since is None or row.seq - max(1, row.seq - PACE) < 1:
        return None
    return float((row.seq - max(1, row.seq - PACE)) / max(now() - since, 1e-3))


def _moment(seconds: float | None) -> Any:
    return None if seconds is None else moment(seconds)
