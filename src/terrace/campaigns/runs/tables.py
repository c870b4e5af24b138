"""What is kept of campaigns. Times are epoch seconds, money is whole picodollars.

The row of a message is the truth: `waiting` until it is fed to the queue, `writing` while a job of its own has it, then
`done`, `failed` or `skipped`. What is counted stands on the campaign's row and changes in the same transactions.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel


def _large(*, nullable: bool = False) -> Column[int]:
    return Column(BigInteger, nullable=nullable)


def _json() -> Column[Any]:
    return Column(JSON(none_as_null=True), nullable=True)


class CampaignRow(SQLModel, table=True):
    __tablename__ = "campaigns"
    __table_args__ = (
        UniqueConstraint("tenant_id", "request_key", name="uq_campaigns_request"),
        Index("ix_campaigns_tenant", "tenant_id", "id"),
    )

    id: str = Field(primary_key=True)  # cmp_...
    tenant_id: str
    user_id: str | None = None  # who pays, beside the tenant
    key_id: str | None = None
    name: str
    state: str
    reason: str | None = Field(default=None, sa_column=Column(Text, nullable=True))  # JSON: why it is paused or failed
    list_id: str
    template_id: str
    template_version: int
    mode: str
    model: str
    options: dict[str, Any] | None = Field(default=None, sa_column=_json())
    walls: list[list[str]] | None = Field(default=None, sa_column=_json())  # which models whoever made it may use
    collection: str | None = None
    budget: int | None = Field(default=None, sa_column=_large(nullable=True))
    concurrency: int
    start_at: float | None = None
    webhook: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    code: str  # of the fence around values
    job_id: str | None = None  # of the stretch it runs or ran last
    preview: dict[str, Any] | None = Field(default=None, sa_column=_json())
    preview_job: str | None = None
    reached: str | None = None  # the last contact that has its row, while it is being prepared
    prepared: bool = False
    total: int = 0
    writing: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    approved: int = 0
    in_row: int = 0  # failures since the last message that was written
    seq: int = 0  # of the message that ended last
    spent: int = Field(default=0, sa_column=_large())
    reserved: int = Field(default=0, sa_column=_large())
    preview_reserved: int = Field(default=0, sa_column=_large())
    unpriced: int = 0  # calls whose price nobody knows; they are not in `spent`
    input_tokens: int = Field(default=0, sa_column=_large())
    output_tokens: int = Field(default=0, sa_column=_large())
    request_key: str | None = None  # whose making it was, and their Idempotency-Key
    fingerprint: str | None = None  # of what was asked with it
    created_at: float
    updated_at: float
    started_at: float | None = None
    finished_at: float | None = None


class MessageRow(SQLModel, table=True):
    __tablename__ = "campaign_messages"
    __table_args__ = (
        UniqueConstraint("campaign_id", "contact_id", name="uq_campaign_messages_contact"),
        Index("ix_campaign_messages_state", "campaign_id", "state", "id"),
        Index(
            "ix_campaign_messages_seq", "campaign_id", "seq",
            sqlite_where=text("seq IS NOT NULL"), postgresql_where=text("seq IS NOT NULL"),
        ),
    )  # fmt: skip

    id: str = Field(primary_key=True)  # cms_...
    tenant_id: str
    campaign_id: str = Field(foreign_key="campaigns.id")
    contact_id: str
    state: str
    seq: int | None = None  # when it ended, among the campaign's
    job_id: str | None = None
    text: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    sources: str | None = Field(default=None, sa_column=Column(Text, nullable=True))  # JSON
    model: str | None = None
    error: str | None = Field(default=None, sa_column=Column(Text, nullable=True))  # JSON: {code, message}
    cost: int = Field(default=0, sa_column=_large())
    reserved: int = Field(default=0, sa_column=_large())
    attempt: int = 0  # of its job, that reserved
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    edited_at: float | None = None
    approved_at: float | None = None
    finished_at: float | None = None
