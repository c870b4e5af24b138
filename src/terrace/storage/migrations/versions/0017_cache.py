"""The answer cache, and the versions of collections that tell whether an answer still holds."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision: str | None = "0016"


def upgrade() -> None:
    op.add_column("collections", sa.Column("version", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("messages", sa.Column("cached_at", sa.Float(), nullable=True))
    op.create_table(
        "cached_answers",
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("context", sa.String(), nullable=False),
        sa.Column("library", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("embedder", sa.String(), nullable=True),
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("sources", sa.JSON(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=True),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("written_at", sa.Float(), nullable=False),
    )
    op.create_index("ix_cached_answers_age", "cached_answers", ["tenant_id", "written_at"])
    op.create_index("ix_cached_answers_context", "cached_answers", ["tenant_id", "context", "written_at"])
    op.create_index("ix_cached_answers_user", "cached_answers", ["user_id"])
    op.create_table(
        "cache_tallies",
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("exact_hits", sa.BigInteger(), nullable=False),
        sa.Column("semantic_hits", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("money", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("cache_tallies")
    op.drop_table("cached_answers")
    op.drop_column("messages", "cached_at")
    op.drop_column("collections", "version")
