"""Tables of the knowledge room."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "collections",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("name_key", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("tenant_id", "name_key", name="uq_collections_name"),
    )
    op.create_table(
        "documents",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("collection_id", sa.String, sa.ForeignKey("collections.id"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("name_key", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("searchable", sa.String, nullable=False),
        sa.Column("embedding", sa.String),
        sa.Column("pages", sa.Integer),
        sa.Column("chunk_count", sa.Integer, nullable=False),
        sa.Column("characters", sa.Integer, nullable=False),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("job_id", sa.String),
        sa.Column("parsed_by", sa.String),
        sa.Column("blob", sa.String, nullable=False),
        sa.Column("text_blob", sa.String),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.UniqueConstraint("tenant_id", "collection_id", "sha256", name="uq_documents_content"),
    )
    op.create_index("ix_documents_tenant", "documents", ["tenant_id", "id"])
    op.create_index("ix_documents_state", "documents", ["tenant_id", "state", "searchable"])
    op.create_table(
        "document_tags",
        sa.Column("document_id", sa.String, sa.ForeignKey("documents.id"), primary_key=True),
        sa.Column("tag", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
    )
    op.create_index("ix_document_tags_tag", "document_tags", ["tenant_id", "tag", "document_id"])
    op.create_table(
        "document_pages",
        sa.Column("document_id", sa.String, sa.ForeignKey("documents.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("start_char", sa.Integer, nullable=False),
        sa.Column("end_char", sa.Integer, nullable=False),
    )
    op.create_table(
        "chunks",
        sa.Column("number", BIG, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("document_id", sa.String, sa.ForeignKey("documents.id"), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("start_char", sa.Integer, nullable=False),
        sa.Column("end_char", sa.Integer, nullable=False),
        sa.Column("page", sa.Integer),
        sa.Column("headings", sa.JSON, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("text_sha256", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_chunks_document", "chunks", ["tenant_id", "document_id", "ordinal"])
    op.create_table(
        "blob_trash",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_blob_trash_tenant", "blob_trash", ["tenant_id"])


def downgrade() -> None:
    for table in ("blob_trash", "chunks", "document_pages", "document_tags", "documents", "collections"):
        op.drop_table(table)
