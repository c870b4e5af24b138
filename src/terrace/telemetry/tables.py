"""What the ledger keeps: each model call, the sums by day, and the prices an operator has set. Money is picodollars."""

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel


class UsageRow(SQLModel, table=True):
    """One call. Its id begins with the time it began."""

    __tablename__ = "usage"
    __table_args__ = (
        Index("ix_usage_tenant", "tenant_id", "id"),  # one more would cost each call a microsecond or two
        {"sqlite_with_rowid": False},
    )

    id: str = Field(primary_key=True)  # use_...
    tenant_id: str
    user_id: str | None
    key_id: str | None
    job_id: str | None
    provider: str
    model: str
    operation: str  # chat | embed
    outcome: str  # ok | cancelled | error | lost
    code: str  # the error's
    input_tokens: int = Field(sa_type=BigInteger)
    cached_tokens: int = Field(sa_type=BigInteger)  # of the input tokens
    output_tokens: int = Field(sa_type=BigInteger)
    estimated: bool
    cost: int | None = Field(sa_type=BigInteger)  # NULL: nobody told the price
    price_dated: str | None
    started_at: float
    duration: float
    first_token: float | None


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
