"""Generations of the index, and the questions they are compared by."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision: str | None = "0011"

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "generations",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), nullable=False, unique=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("setting", sa.String(), nullable=False),
        sa.Column("precision", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("bound", sa.Float(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("comparison", sa.JSON(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("ready_at", sa.Float(), nullable=True),
        sa.Column("switched_at", sa.Float(), nullable=True),
    )
    op.create_table(
        "recent_queries",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_recent_queries_tenant", "recent_queries", ["tenant_id", "asked_at"])


def downgrade() -> None:
    op.drop_table("recent_queries")
    op.drop_table("generations")
