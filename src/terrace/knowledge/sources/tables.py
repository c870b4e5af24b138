"""What sources keep: where each looks, and what it brought from there."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text
from sqlmodel import Field, SQLModel


class SourceRow(SQLModel, table=True):
    __tablename__ = "sources"
    __table_args__ = (Index("ix_sources_tenant", "tenant_id", "id"),)

    id: str = Field(primary_key=True)  # src_...
    tenant_id: str
    user_id: str | None = None  # who made it
    kind: str  # folder | url | site | feed
    name: str
    location: str = Field(sa_column=Column(Text, nullable=False))  # a folder's real path, or an address
    collection: str
    tags: list[str] = Field(default=[], sa_column=Column(JSON, nullable=False))
    options: dict[str, Any] = Field(default={}, sa_column=Column(JSON, nullable=False))
    watch: bool = False
    schedule_id: str | None = None  # made together with it
    job_id: str | None = None  # the run that may write its items: the fence
    fingerprint: str | None = None  # of the folder as the last whole run saw it
    validators: dict[str, Any] = Field(default={}, sa_column=Column(JSON, nullable=False))  # of a feed
    report: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    ran_at: float | None = None
    created_at: float
    updated_at: float


class SourceItemRow(SQLModel, table=True):
    """A file, page or entry. Those a run has still to visit are `listed` by it and not yet `run` by it, so that a run
    which was killed goes on where it stopped."""

    __tablename__ = "source_items"
    __table_args__ = (
        Index("ix_source_items_next", "source_id", "listed", "depth", "key_hash"),
        Index("ix_source_items_tenant", "tenant_id", "source_id"),
        Index("ix_source_items_document", "tenant_id", "document_id"),
        Index("ix_source_items_text", "source_id", "text_sha256"),
    )

    source_id: str = Field(primary_key=True)
    key_hash: str = Field(primary_key=True)  # SHA-256 of the key
    tenant_id: str
    key: str = Field(sa_column=Column(Text, nullable=False))  # an address, or a path within the folder
    depth: int = 0  # links away from the first page
    document_id: str | None = None
    owned: bool = False  # the document was brought by this item, not found here
    sha256: str | None = None  # of what was fetched or read
    text_sha256: str | None = None  # of a page's text
    size: int | None = Field(default=None, sa_column=Column(BigInteger))
    mtime_ns: int | None = Field(default=None, sa_column=Column(BigInteger))
    etag: str | None = None
    last_modified: str | None = None
    lastmod: str | None = None  # what the sitemap says
    missing: int = 0  # runs in a row that found it gone
    listed: str | None = None  # the run that last knew of it
    run: str | None = None  # the run that last visited it
    outcome: str = "found"  # found | added | changed | unchanged | removed | failed | skipped
    reason: str = Field(default="", sa_column=Column(Text, nullable=False))
    checked_at: float | None = None
    changed_at: float | None = None
