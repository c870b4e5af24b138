"""Tables of the index room. Full text tables come one a tenant, when a tenant's first text does."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_index("ix_chunks_text_sha256", "chunks", ["tenant_id", "text_sha256"])
    op.create_table(
        "chunk_vectors",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", BIG, sa.ForeignKey("chunks.number"), nullable=False),
        sa.Column("document_id", sa.String, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_chunk_vectors_chunk", "chunk_vectors", ["tenant_id", "model", "number"], unique=True)
    op.create_index("ix_chunk_vectors_new", "chunk_vectors", ["tenant_id", "model", "id"])
    op.create_index("ix_chunk_vectors_document", "chunk_vectors", ["tenant_id", "document_id"])
    op.create_index("ix_chunk_vectors_number", "chunk_vectors", ["number"])
    op.create_table(
        "chunk_vector_removals",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("vector_id", BIG, nullable=False),
        sa.Column("removed_at", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_chunk_vector_removals_new", "chunk_vector_removals", ["tenant_id", "model", "id"])
    op.create_index("ix_chunk_vector_removals_age", "chunk_vector_removals", ["removed_at"])


def downgrade() -> None:
    op.drop_table("chunk_vector_removals")
    op.drop_table("chunk_vectors")
    op.drop_index("ix_chunks_text_sha256", "chunks")
    if op.get_bind().dialect.name == "sqlite":
        _drop_full_text()


def _drop_full_text() -> None:
    tables = op.get_bind().exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE chunk_text_%'"
    )
    for (name,) in tables.all():
        op.execute(f"DROP TABLE {name}")
