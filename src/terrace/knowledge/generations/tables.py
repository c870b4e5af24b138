"""What generations keep. They are the installation's; the questions they are compared by are their tenants'."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Text
from sqlmodel import Field, SQLModel

BIG = BigInteger().with_variant(Integer, "sqlite")


class GenerationRow(SQLModel, table=True):
    __tablename__ = "generations"

    id: str = Field(primary_key=True)  # gen_...
    key: str = Field(unique=True)  # what its vectors are kept under
    model: str  # the embedder's name
    setting: str  # what `knowledge.embedding.model` was
    precision: str
    state: str  # building | ready | serving | retired
    dimensions: int = 0
    automatic: bool = True  # it takes its place by itself when it is alike enough
    bound: float  # how alike
    job_id: str | None = None
    comparison: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    note: str = Field(default="", sa_column=Column(Text, nullable=False))
    created_at: float
    ready_at: float | None = None
    switched_at: float | None = None


class RecentQueryRow(SQLModel, table=True):
    """What was lately searched for, without who did: only generations are compared by it, and nobody is shown it."""

    __tablename__ = "recent_queries"
    __table_args__ = (Index("ix_recent_queries_tenant", "tenant_id", "asked_at"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    tenant_id: str
    query: str = Field(sa_column=Column(Text, nullable=False))
    asked_at: float
