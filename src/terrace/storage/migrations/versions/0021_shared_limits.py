"""Limits that many processes share: what each holds of them, who they are, and where they meet."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision: str | None = "0020"

TABLES = ("limit_meeting", "limit_members", "limit_holds", "limit_shares", "limit_pools")


def upgrade() -> None:
    op.create_table(
        "limit_pools",
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("booked", sa.BigInteger(), nullable=False),
        sa.Column("wanted", sa.Float(), nullable=False),
        sa.Column("ends", sa.Float(), nullable=False),
    )
    op.create_table(
        "limit_shares",
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("holder", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("idle", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.Float(), nullable=True),
    )
    op.create_index("ix_limit_shares_holder", "limit_shares", ["holder"])
    op.create_table(
        "limit_holds",
        sa.Column("job_id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("holder", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
    )
    op.create_index("ix_limit_holds_until", "limit_holds", ["until"])
    op.create_table(
        "limit_members",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("beat", sa.Float(), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "limit_meeting",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
    )


def downgrade() -> None:
    for name in TABLES:
        op.drop_table(name)
