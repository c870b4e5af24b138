"""Sources: watched folders, sites and feeds, and what each has brought."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision: str | None = "0010"


def upgrade() -> None:
    op.add_column("documents", sa.Column("source_url", sa.String(), nullable=True))
    op.create_table(
        "sources",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("collection", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("watch", sa.Boolean(), nullable=False),
        sa.Column("schedule_id", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("validators", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("ran_at", sa.Float(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
    )
    op.create_index("ix_sources_tenant", "sources", ["tenant_id", "id"])
    op.create_table(
        "source_items",
        sa.Column("source_id", sa.String(), primary_key=True),
        sa.Column("key_hash", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("document_id", sa.String(), nullable=True),
        sa.Column("owned", sa.Boolean(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.Column("text_sha256", sa.String(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("etag", sa.String(), nullable=True),
        sa.Column("last_modified", sa.String(), nullable=True),
        sa.Column("lastmod", sa.String(), nullable=True),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("listed", sa.String(), nullable=True),
        sa.Column("run", sa.String(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("checked_at", sa.Float(), nullable=True),
        sa.Column("changed_at", sa.Float(), nullable=True),
    )
    op.create_index("ix_source_items_next", "source_items", ["source_id", "listed", "depth", "key_hash"])
    op.create_index("ix_source_items_tenant", "source_items", ["tenant_id", "source_id"])
    op.create_index("ix_source_items_document", "source_items", ["tenant_id", "document_id"])
    op.create_index("ix_source_items_text", "source_items", ["source_id", "text_sha256"])


def downgrade() -> None:
    op.drop_table("source_items")
    op.drop_table("sources")
    op.drop_column("documents", "source_url")
