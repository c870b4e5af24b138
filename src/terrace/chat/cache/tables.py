"""What the answer cache keeps. Times are seconds since the epoch."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, Text
from sqlmodel import Field, SQLModel


def _big() -> Column[int]:
    return Column(BigInteger, nullable=False)


class CachedAnswerRow(SQLModel, table=True):
    __tablename__ = "cached_answers"
    __table_args__ = (
        Index("ix_cached_answers_age", "tenant_id", "written_at"),
        Index("ix_cached_answers_context", "tenant_id", "context", "written_at"),
        Index("ix_cached_answers_user", "user_id"),
    )

    tenant_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)  # of the question and its context
    context: str
    library: str  # the state of the documents it was written from
    user_id: str | None = None  # who asked first: what they said goes with them
    question: str = Field(sa_column=Column(Text, nullable=False))
    vector: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    embedder: str | None = None
    response: str = Field(sa_column=Column(Text, nullable=False))
    sources: list[dict[str, Any]] = Field(default=[], sa_column=Column(JSON, nullable=False))
    model: str
    input_tokens: int
    output_tokens: int
    cost: int | None = Field(default=None, sa_column=Column(BigInteger))  # picodollars
    hits: int = 0
    written_at: float


class CacheTallyRow(SQLModel, table=True):
    """What a tenant was spared; it outlives the answers."""

    __tablename__ = "cache_tallies"

    tenant_id: str = Field(primary_key=True)
    exact_hits: int = Field(default=0, sa_column=_big())
    semantic_hits: int = Field(default=0, sa_column=_big())
    tokens: int = Field(default=0, sa_column=_big())
    money: int = Field(default=0, sa_column=_big())  # picodollars
