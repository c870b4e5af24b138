"""What imports keep: each run, and what became of each document of the source."""

from typing import Any

from sqlalchemy import JSON, Column, Index, Text
from sqlmodel import Field, SQLModel


class ImportRow(SQLModel, table=True):
    __tablename__ = "imports"
    __table_args__ = (Index("ix_imports_tenant", "tenant_id", "id"),)

    id: str = Field(primary_key=True)  # imp_...
    tenant_id: str
    state: str  # running | verified | differs | rolled_back
    plan: str  # hash of the mapping and of where it reads from: the same import, when it goes on
    source: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # mapping and places, without secrets
    fit: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    report: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    generation_id: str | None = None  # one that it made
    collections: list[str] = Field(default=[], sa_column=Column(JSON, nullable=False))  # ids it made
    created_at: float
    updated_at: float


class ImportedRow(SQLModel, table=True):
    """A document of the source. `document_id` is empty when it did not come; `note` says why."""

    __tablename__ = "imported_documents"
    __table_args__ = (Index("ix_imported_documents_document", "tenant_id", "document_id"),)

    import_id: str = Field(primary_key=True, foreign_key="imports.id")
    source_id: str = Field(primary_key=True)
    tenant_id: str
    document_id: str = ""
    content: str = ""  # SHA-256 of what it should be here
    chunks: int = 0
    vectors: int = 0
    note: str = Field(default="", sa_column=Column(Text, nullable=False))
    details: dict[str, Any] = Field(default={}, sa_column=Column(JSON, nullable=False))  # its metadata there
