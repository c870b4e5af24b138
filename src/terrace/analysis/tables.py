"""What the analysis room keeps: an analysis, its pages, and what the model answered call by call."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


def _json(*, nullable: bool = True) -> Column[Any]:
    return Column(JSON(none_as_null=True), nullable=nullable)


def _text() -> Column[Any]:
    return Column(Text, nullable=False)


class AnalysisRow(SQLModel, table=True):
    __tablename__ = "analyses"
    __table_args__ = (
        UniqueConstraint("tenant_id", "request_key", name="uq_analyses_request"),
        Index("ix_analyses_own", "tenant_id", "user_id", "id"),
        Index("ix_analyses_saving", "state", "updated_at"),
    )

    id: str = Field(primary_key=True)  # ana_...
    tenant_id: str
    user_id: str | None = None
    key_id: str | None = None
    name: str
    type: str = ""
    prompt: str = Field(default="", sa_column=_text())  # the caller's own; empty: the type's
    fields_schema: dict[str, Any] | None = Field(default=None, sa_column=_json())  # the caller's own
    wanted_model: str | None = None
    webhook: str | None = None
    media_type: str = ""
    bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    fingerprint: str = ""  # of the file and how it shall be analysed
    request_key: str | None = None  # whose asking, and their Idempotency-Key
    blob: str
    state: str = "saving"
    pages: int | None = None
    pages_done: int = 0
    way: str | None = None
    why: str = ""
    model: str | None = None
    warnings: list[str] = Field(default=[], sa_column=_json(nullable=False))  # about the file as a whole
    result: dict[str, Any] | None = Field(default=None, sa_column=_json())
    usage: dict[str, Any] | None = Field(default=None, sa_column=_json())
    cost: float | None = None
    error: dict[str, Any] | None = Field(default=None, sa_column=_json())
    job_id: str | None = None  # the one job that may write this row: its fence
    created_at: float
    updated_at: float
    finished_at: float | None = None


class PageRow(SQLModel, table=True):
    __tablename__ = "analysis_pages"

    analysis_id: str = Field(primary_key=True, foreign_key="analyses.id")
    number: int = Field(primary_key=True)
    tenant_id: str
    kind: str  # page | picture | text
    label: str
    source: str = ""
    state: str = "waiting"  # waiting | ready | answered | failed
    text: str = Field(default="", sa_column=_text())
    read_by: str | None = None  # the OCR program its text comes from
    blob: str | None = None
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    note: str = Field(default="", sa_column=_text())
    error: str | None = Field(default=None, sa_column=Column(Text))


class StepRow(SQLModel, table=True):
    """One call of the model: its answer, once there is one, is not asked for again."""

    __tablename__ = "analysis_steps"

    analysis_id: str = Field(primary_key=True, foreign_key="analyses.id")
    key: str = Field(primary_key=True)  # such as pages-1-8, together, repair-1
    tenant_id: str
    answer: str | None = Field(default=None, sa_column=Column(Text))
    finish: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = Field(default=None, sa_column=_json())
    failures: int = 0
    error: dict[str, Any] | None = Field(default=None, sa_column=_json())
