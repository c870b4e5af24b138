"""What processes that share limits know of each other."""

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel


class LimitPoolRow(SQLModel, table=True):
    """What the ledger has booked on one limit in its day or month."""

    __tablename__ = "limit_pools"

    tenant_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    booked: int = Field(sa_type=BigInteger)
    wanted: float  # somebody wants what others have idle, until then
    ends: float  # the day or month; of what has none, far away


class LimitShareRow(SQLModel, table=True):
    """What one holder has of one limit: a process (by its journal), a job, or the last minute of who left."""

    __tablename__ = "limit_shares"
    __table_args__ = (Index("ix_limit_shares_holder", "holder"),)

    tenant_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    holder: int = Field(sa_type=BigInteger, primary_key=True)
    held: int = Field(sa_type=BigInteger)
    idle: int = Field(sa_type=BigInteger)
    until: float | None = None  # then it counts no more


class LimitHoldRow(SQLModel, table=True):
    """Room kept for a job."""

    __tablename__ = "limit_holds"
    __table_args__ = (Index("ix_limit_holds_until", "until"),)

    job_id: str = Field(primary_key=True)
    tenant_id: str
    holder: int = Field(sa_type=BigInteger)
    until: float


class LimitMemberRow(SQLModel, table=True):
    """A process that counts limits, by its journal."""

    __tablename__ = "limit_members"

    id: int = Field(sa_type=BigInteger, primary_key=True)
    beat: float  # when it was heard of last
    alone: bool  # it counts everything itself, and has told nobody what it holds
    epoch: int = Field(sa_type=BigInteger)  # the meeting it has said everything in


class LimitMeetingRow(SQLModel, table=True):
    """Where all meet at present: one row. Each change of the place is another epoch."""

    __tablename__ = "limit_meeting"

    id: int = Field(primary_key=True)
    epoch: int = Field(sa_type=BigInteger)
    place: str  # database | redis
    run: str  # what the Redis of this epoch knows itself by: one that forgot it has forgotten all
