"""What the ledger keeps: each model call, the sums by day, and the prices an operator has set. Money is picodollars."""

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel


class UsagePageRow(SQLModel, table=True):
    """Up to a thousand calls of a tenant that were booked together. A row for each would be fifteen times as long, and
    would cost the process that makes the calls more than making them."""

    __tablename__ = "usage_pages"
    __table_args__ = (
        Index("ix_usage_pages_tenant", "tenant_id", "id"),
        Index("ix_usage_pages_journal", "journal", "batch"),
    )

    id: str = Field(primary_key=True)  # begins with the time of the booking: every call in it began before
    tenant_id: str
    journal: int = Field(sa_type=BigInteger)  # whose calls these are,
    batch: int  # and which of its bookings: each is made once
    calls: int
    about: str  # users, keys and models of the calls, so that few pages are opened to find one
    body: bytes  # `telemetry.records.pack`


class UsageDayRow(SQLModel, table=True):
    """The sums of a day (UTC, of the calls' beginnings). They stay when the single calls go."""

    __tablename__ = "usage_days"
    __table_args__ = (Index("ix_usage_days_day", "day"),)

    tenant_id: str = Field(primary_key=True)
    day: str = Field(primary_key=True)  # 2026-11-21
    user_id: str = Field(primary_key=True)  # empty: nobody's
    key_id: str = Field(primary_key=True)  # empty: without a key
    model: str = Field(primary_key=True)  # <provider>/<model>
    calls: int = Field(sa_type=BigInteger)
    failed: int = Field(sa_type=BigInteger)
    unpriced: int = Field(sa_type=BigInteger)  # calls whose cost nobody knows
    input_tokens: int = Field(sa_type=BigInteger)
    cached_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    cost: int = Field(sa_type=BigInteger)


class PriceRow(SQLModel, table=True):
    """A price an operator has set, in picodollars a token."""

    __tablename__ = "prices"

    model: str = Field(primary_key=True)  # `<provider>/<model>`, or a model's name wherever it is
    input: int = Field(sa_type=BigInteger)
    cached: int = Field(sa_type=BigInteger)
    output: int = Field(sa_type=BigInteger)
    dated: str
    set_by: str
    set_at: float
