"""What the index keeps on SQLite beside the chunks. Full text is one FTS5 table a tenant, made when first needed."""

from sqlalchemy import Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

from terrace.knowledge.tables import BIG, ChunkRow

# An unchanged chunk finds its vector by the hash of its text.
Index("ix_chunks_text_sha256", ChunkRow.__table__.c.tenant_id, ChunkRow.__table__.c.text_sha256)  # type: ignore[attr-defined]


class VectorRow(SQLModel, table=True):
    """One chunk's vector under one model. Ids only grow, so what is new is what has a greater id."""

    __tablename__ = "chunk_vectors"
    __table_args__ = (
        Index("uq_chunk_vectors_chunk", "tenant_id", "model", "number", unique=True),
        Index("ix_chunk_vectors_new", "tenant_id", "model", "id"),
        Index("ix_chunk_vectors_document", "tenant_id", "document_id"),
        Index("ix_chunk_vectors_number", "number"),  # what deleting a chunk row looks through
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    tenant_id: str
    model: str
    number: int = Field(sa_type=BIG, foreign_key="chunks.number")
    document_id: str
    vector: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # float16, little-endian


class VectorRemovalRow(SQLModel, table=True):
    """Vectors lately removed, so that every process can take them out of memory. Kept for a day."""

    __tablename__ = "chunk_vector_removals"
    __table_args__ = (
        Index("ix_chunk_vector_removals_new", "tenant_id", "model", "id"),
        Index("ix_chunk_vector_removals_age", "removed_at"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    tenant_id: str
    model: str
    vector_id: int = Field(sa_type=BIG)
    removed_at: float
