"""The usage ledger: each model call, its sums by day, and the prices an operator has set."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=True),  # picodollars; NULL: nobody told the price
        sa.Column("price_dated", sa.String(), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("duration", sa.Float(), nullable=False),
        sa.Column("first_token", sa.Float(), nullable=True),
        sqlite_with_rowid=False,  # kept in the order of the ids: one tree less to write each call to
    )
    # Ids begin with the time a call began, so they are what lists are sorted by and what is too old is found by.
    op.create_index("ix_usage_tenant", "usage", ["tenant_id", "id"])
    op.create_table(
        "usage_days",
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("day", sa.String(), primary_key=True),  # UTC, 2026-11-21
        sa.Column("user_id", sa.String(), primary_key=True),  # empty: nobody's
        sa.Column("key_id", sa.String(), primary_key=True),  # empty: without a key
        sa.Column("model", sa.String(), primary_key=True),  # <provider>/<model>
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("unpriced", sa.BigInteger(), nullable=False),  # calls whose cost nobody knows
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),  # picodollars
    )
    op.create_index("ix_usage_days_day", "usage_days", ["day"])
    op.create_table(
        "prices",
        sa.Column("model", sa.String(), primary_key=True),
        sa.Column("input", sa.BigInteger(), nullable=False),  # picodollars a token
        sa.Column("cached", sa.BigInteger(), nullable=False),
        sa.Column("output", sa.BigInteger(), nullable=False),
        sa.Column("dated", sa.String(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.Column("set_at", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    for table in ("prices", "usage_days", "usage"):
        op.drop_table(table)
