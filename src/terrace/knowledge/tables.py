"""What the knowledge room keeps. Positions count characters of the document's text; times are epoch seconds."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, String, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

BIG = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows itself only for INTEGER


class CollectionRow(SQLModel, table=True):
    __tablename__ = "collections"
    __table_args__ = (UniqueConstraint("tenant_id", "name_key", name="uq_collections_name"),)

    id: str = Field(primary_key=True)  # col_...
    tenant_id: str
    name: str
    name_key: str  # the name case-folded: "Reports" and "reports" are one collection
    created_at: float
    version: int = Field(  # grows with each change of what a search in it may find
        default=0, sa_column=Column(Integer, nullable=False, server_default="0")
    )


class DocumentRow(SQLModel, table=True):
    __tablename__ = "documents"
    __table_args__ = (
        UniqueConstraint("tenant_id", "collection_id", "sha256", name="uq_documents_content"),
        Index("ix_documents_tenant", "tenant_id", "id"),
        Index("ix_documents_state", "tenant_id", "state", "searchable"),
        Index("ix_documents_user", "tenant_id", "user_id", "bytes"),  # with the bytes: what is stored is summed often
        Index("ix_documents_key", "tenant_id", "key_id", "bytes"),
    )

    id: str = Field(primary_key=True)  # doc_...
    tenant_id: str
    collection_id: str = Field(foreign_key="collections.id")
    name: str
    name_key: str  # name and title case-folded, for finding by name
    title: str = ""
    media_type: str
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    sha256: str
    state: str = "queued"  # queued | parsing | embedding | ready | failed
    searchable: str = "no"  # no | words | meaning
    embedding: str | None = None  # the model whose vectors all its chunks have
    pages: int | None = None
    chunk_count: int = 0
    characters: int = 0
    warnings: list[str] = Field(default=[], sa_column=Column(JSON, nullable=False))
    error: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    job_id: str | None = None  # the one job that may write this document: its fence
    user_id: str | None = None  # who uploaded it
    key_id: str | None = None  # the API key it came with
    parsed_by: str | None = None  # the job whose parse the chunks come from: a retry of it need not parse again
    blob: str  # key of the original
    text_blob: str | None = None  # key of the text, UTF-32; replaced together with the chunks
    source_url: str | None = None  # where a source found it on the web
    created_at: float
    updated_at: float


class TagRow(SQLModel, table=True):
    __tablename__ = "document_tags"
    __table_args__ = (Index("ix_document_tags_tag", "tenant_id", "tag", "document_id"),)

    document_id: str = Field(primary_key=True, foreign_key="documents.id")
    tag: str = Field(primary_key=True)
    tenant_id: str


class PageRow(SQLModel, table=True):
    __tablename__ = "document_pages"

    document_id: str = Field(primary_key=True, foreign_key="documents.id")
    number: int = Field(primary_key=True)
    tenant_id: str
    start_char: int
    end_char: int


class ChunkRow(SQLModel, table=True):
    """`text == document text[start_char:end_char]`. `number` is what full text and vectors key their rows by."""

    __tablename__ = "chunks"
    __table_args__ = (
        Index("ix_chunks_document", "tenant_id", "document_id", "ordinal"),
        {"sqlite_autoincrement": True},
    )

    number: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    id: str = Field(sa_column=Column(String, nullable=False, unique=True))  # chk_...
    tenant_id: str
    document_id: str = Field(foreign_key="documents.id")
    ordinal: int
    start_char: int
    end_char: int
    page: int | None = None
    headings: list[str] = Field(default=[], sa_column=Column(JSON, nullable=False))
    title: str = ""
    text: str = Field(sa_column=Column(Text, nullable=False))
    text_sha256: str  # of title, headings and text: an unchanged chunk keeps its vector


class TrashRow(SQLModel, table=True):
    """A blob nobody refers to any more, decided with the rows; the file goes after the commit."""

    __tablename__ = "blob_trash"
    __table_args__ = (Index("ix_blob_trash_tenant", "tenant_id"),)

    key: str = Field(primary_key=True)
    tenant_id: str
    created_at: float
