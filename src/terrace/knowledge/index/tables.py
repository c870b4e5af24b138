"""What the index keeps beside the chunks. Full text on SQLite is one FTS5 table a tenant, made when first needed;
on PostgreSQL it is tables of migration 0018, which only SQL written for it reads.
"""

import struct
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import DDL, Column, Dialect, Index, LargeBinary, event
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType
from sqlmodel import Field, SQLModel

from terrace.knowledge.tables import BIG, ChunkRow

# An unchanged chunk finds its vector by the hash of its text.
Index("ix_chunks_text_sha256", ChunkRow.__table__.c.tenant_id, ChunkRow.__table__.c.text_sha256)  # type: ignore[attr-defined]


def halves_text(numbers: Iterable[float]) -> str:
    """As pgvector reads them, which takes what is nearest among float16."""
    return msgspec.json.encode([float(number) for number in numbers]).decode()


class _Halfvec(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "halfvec"


class Halves(TypeDecorator[bytes]):
    """float16, little-endian: bytes in Python and on SQLite, a `halfvec` on PostgreSQL."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(_Halfvec() if dialect.name == "postgresql" else LargeBinary())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None or dialect.name != "postgresql":
            return value
        return halves_text(struct.unpack(f"<{len(value) // 2}e", value))

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:
        if value is None or dialect.name != "postgresql":
            return value  # type: ignore[no-any-return]
        numbers = [float(number) for number in value[1:-1].split(",")]
        return struct.pack(f"<{len(numbers)}e", *numbers)


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
    vector: bytes = Field(sa_column=Column(Halves, nullable=False))


class VectorRemovalRow(SQLModel, table=True):
    """Vectors lately removed, so that every process can take them out of memory. Kept for a day.

    PostgreSQL keeps none: there nothing is in memory.
    """

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


# Where tables are made from these declarations alone, as tests do.
event.listen(
    VectorRow.__table__,  # type: ignore[attr-defined]
    "before_create",
    DDL("CREATE EXTENSION IF NOT EXISTS vector").execute_if(dialect="postgresql"),  # type: ignore[no-untyped-call]
)
