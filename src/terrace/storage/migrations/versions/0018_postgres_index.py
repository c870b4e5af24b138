"""The index on PostgreSQL: vectors as pgvector keeps them, and what words are in which chunk. SQLite has its own."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0018"
down_revision: str | None = "0017"

TABLES = ("vector_spaces", "word_totals", "word_counts", "word_changes", "chunk_words")


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.execute("DELETE FROM chunk_vectors")
    op.drop_column("chunk_vectors", "vector")
    # In the row itself where it fits in a page: an exact search reads thousands.
    op.execute("ALTER TABLE chunk_vectors ADD COLUMN vector halfvec STORAGE MAIN NOT NULL")
    op.create_table(
        "vector_spaces",
        sa.Column("tenant_id", sa.String, primary_key=True),
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("dimensions", sa.Integer, nullable=False),
    )
    op.create_table(
        "chunk_words",
        sa.Column("number", sa.BigInteger, sa.ForeignKey("chunks.number"), primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.String, nullable=False),  # a tenant_id would be walled in: see words.py
        sa.Column("document_id", sa.String, nullable=False),
        sa.Column("length", sa.Integer, nullable=False),
        sa.Column("words", ARRAY(sa.BigInteger), nullable=False),
        sa.Column("times", sa.LargeBinary, nullable=False),
    )
    op.execute("ALTER TABLE chunk_words SET (toast_tuple_target = 4080)")  # rows stay whole
    op.create_index("ix_chunk_words_document", "chunk_words", ["tenant", "document_id"])
    # A list of what came in last would have to be read through by each search.
    op.execute("CREATE INDEX ix_chunk_words_words ON chunk_words USING gin (words) WITH (fastupdate = off)")
    op.create_table(
        "word_changes",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("chunks", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("words", ARRAY(sa.BigInteger), nullable=False),
        sa.Column("counts", ARRAY(sa.BigInteger), nullable=False),
    )
    op.create_index("ix_word_changes_tenant", "word_changes", ["tenant_id"])
    op.create_table(
        "word_counts",
        sa.Column("tenant_id", sa.String, primary_key=True),
        sa.Column("word", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("chunks", sa.BigInteger, nullable=False),
    )
    op.execute("ALTER TABLE word_counts SET (fillfactor = 80)")  # they change in place
    op.create_table(
        "word_totals",
        sa.Column("tenant_id", sa.String, primary_key=True),
        sa.Column("chunks", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in TABLES:
        op.drop_table(table)
    op.execute("DELETE FROM chunk_vectors")  # they are embedded again; the graphs go with the column
    op.drop_column("chunk_vectors", "vector")
    op.add_column("chunk_vectors", sa.Column("vector", sa.LargeBinary, nullable=False))
