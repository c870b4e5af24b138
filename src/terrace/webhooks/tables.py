"""What the webhooks room keeps. Times are seconds since the epoch; secrets are sealed.

A lane is what deliveries to one receiver queue up in: an endpoint's id, or `once:<host>` for addresses that were named
for one event. A courier is the job that serves a lane; there is one at a time.
"""

from typing import Any

from sqlalchemy import JSON, Column, Index, Text, text
from sqlmodel import Field, SQLModel


def _text(*, nullable: bool = False) -> Column[Any]:
    return Column(Text, nullable=nullable)


class EndpointRow(SQLModel, table=True):
    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("ix_webhook_endpoints_tenant", "tenant_id", "id"),)

    id: str = Field(primary_key=True)  # whk_...
    tenant_id: str
    url: str = Field(sa_column=_text())
    description: str
    events: list[str] = Field(default=[], sa_column=Column(JSON, nullable=False))
    enabled: bool
    disabled_reason: str | None = Field(None, sa_column=_text(nullable=True))
    failing_since: float | None = None
    secret: str = Field(sa_column=_text())
    previous_secret: str | None = Field(None, sa_column=_text(nullable=True))
    previous_until: float | None = None
    created_at: float
    updated_at: float


class SignerRow(SQLModel, table=True):
    """What signs deliveries to addresses that were named for one event."""

    __tablename__ = "webhook_signers"

    tenant_id: str = Field(primary_key=True)
    secret: str = Field(sa_column=_text())
    created_at: float


class CourierRow(SQLModel, table=True):
    __tablename__ = "webhook_couriers"

    tenant_id: str = Field(primary_key=True)
    lane: str = Field(primary_key=True)
    job_id: str | None = None
    job_at: float | None = None  # when that job runs
    called_at: float  # written by whoever looks at this row in order to act on it, so that they do so in turn


class DeliveryRow(SQLModel, table=True):
    __tablename__ = "webhook_deliveries"

    id: str = Field(primary_key=True)  # dlv_...
    tenant_id: str
    lane: str
    url: str | None = Field(None, sa_column=_text(nullable=True))  # None: the endpoint's, as it is now
    event_id: str  # evt_..., the receiver's webhook-id
    type: str
    body: str = Field(sa_column=_text())
    state: str
    attempts: int
    failures: int  # since it was put in, or asked for again
    tries: str = Field(sa_column=_text())  # JSON, the latest last
    answer: str | None = Field(None, sa_column=_text(nullable=True))
    created_at: float
    next_at: float | None
    until: float  # no attempt after this
    finished_at: float | None = None

    __table_args__ = (
        Index("ix_webhook_deliveries_lane", "tenant_id", "lane", "id"),
        Index("ix_webhook_deliveries_event", "tenant_id", "lane", "event_id", unique=True),
        Index("ix_webhook_deliveries_created", "created_at"),
        Index(
            "ix_webhook_deliveries_due", "tenant_id", "lane", "next_at", "id",
            sqlite_where=text("state = 'queued'"), postgresql_where=text("state = 'queued'"),
        ),
    )  # fmt: skip
