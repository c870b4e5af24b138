"""What batches keep. Times are seconds since the epoch."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text
from sqlmodel import Field, SQLModel


def _big() -> Column[int]:
    return Column(BigInteger, nullable=False)


class BatchFileRow(SQLModel, table=True):
    __tablename__ = "batch_files"
    __table_args__ = (
        Index("ix_batch_files_own", "tenant_id", "user_id", "id"),
        Index("ix_batch_files_key", "tenant_id", "key_id"),
        Index("ix_batch_files_expiry", "expires_at"),
    )

    id: str = Field(primary_key=True)  # file_...
    tenant_id: str
    user_id: str | None = None
    key_id: str | None = None  # the API key it came with
    purpose: str  # batch | batch_output
    name: str
    bytes: int = Field(sa_column=_big())
    blob: str
    created_at: float
    expires_at: float | None = None


class BatchRow(SQLModel, table=True):
    """`reached` holds when it came to each status, by the status."""

    __tablename__ = "batches"
    __table_args__ = (Index("ix_batches_own", "tenant_id", "user_id", "id"),)

    id: str = Field(primary_key=True)  # batch_...
    tenant_id: str
    user_id: str | None = None
    endpoint: str
    input_file_id: str
    completion_window: str
    status: str
    labels: dict[str, str] | None = Field(default=None, sa_column=Column("metadata", JSON(none_as_null=True)))
    model: str | None = None
    errors: list[dict[str, Any]] = Field(default=[], sa_column=Column(JSON, nullable=False))
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = Field(default=0, sa_column=_big())
    cached_tokens: int = Field(default=0, sa_column=_big())
    output_tokens: int = Field(default=0, sa_column=_big())
    output_file_id: str | None = None  # given when it is finalized; shown when it is over
    error_file_id: str | None = None
    output_seconds: int | None = None  # how long those files are kept
    job_id: str | None = None
    reached: dict[str, float] = Field(default={}, sa_column=Column(JSON, nullable=False))
    created_at: float
    expires_at: float


class BatchLineRow(SQLModel, table=True):
    """An answer, as the file it goes to will hold it. Gone once that file is there."""

    __tablename__ = "batch_lines"

    batch_id: str = Field(primary_key=True, foreign_key="batches.id")
    number: int = Field(primary_key=True)  # of the line in the input file, from 1
    tenant_id: str
    good: bool  # the output file's, else the error file's
    record: str = Field(sa_column=Column(Text, nullable=False))
