"""What is known about a corpus besides what it holds. Times are epoch seconds."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index
from sqlmodel import Field, SQLModel


class RetrievalRow(SQLModel, table=True):
    """How often a document was found by a search, and when last."""

    __tablename__ = "document_retrievals"
    __table_args__ = {"sqlite_with_rowid": False}

    tenant_id: str = Field(primary_key=True)
    document_id: str = Field(primary_key=True)
    times: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_at: float


class ReportRow(SQLModel, table=True):
    """What a check found; the whole of it for the latest, counts by kind for those before."""

    __tablename__ = "corpus_reports"
    __table_args__ = (Index("ix_corpus_reports_tenant", "tenant_id", "id"),)

    id: str = Field(primary_key=True)  # rep_...
    tenant_id: str
    checked_at: float
    counts: dict[str, int] = Field(default={}, sa_column=Column(JSON, nullable=False))
    report: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))


class WatchRow(SQLModel, table=True):
    """Since when a tenant's corpus is watched, and as what the last check saw it."""

    __tablename__ = "corpus_watch"

    tenant_id: str = Field(primary_key=True)
    since: float
    seen: str
    checked_at: float
