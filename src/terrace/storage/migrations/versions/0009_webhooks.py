"""Webhook endpoints and the log of their deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"

QUEUED = sa.text("state = 'queued'")


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("failing_since", sa.Float(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=False),  # sealed
        sa.Column("previous_secret", sa.Text(), nullable=True),
        sa.Column("previous_until", sa.Float(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
    )
    op.create_index("ix_webhook_endpoints_tenant", "webhook_endpoints", ["tenant_id", "id"])
    op.create_table(
        "webhook_signers",
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("secret", sa.Text(), nullable=False),  # sealed
        sa.Column("created_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "webhook_couriers",
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("lane", sa.String(), primary_key=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("job_at", sa.Float(), nullable=True),
        sa.Column("called_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("lane", sa.String(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
    )
    op.create_index("ix_webhook_deliveries_lane", "webhook_deliveries", ["tenant_id", "lane", "id"])
    op.create_index("ix_webhook_deliveries_event", "webhook_deliveries", ["tenant_id", "lane", "event_id"], unique=True)
    op.create_index("ix_webhook_deliveries_created", "webhook_deliveries", ["created_at"])
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["tenant_id", "lane", "next_at", "id"],
        sqlite_where=QUEUED,
        postgresql_where=QUEUED,
    )


def downgrade() -> None:
    for table in ("webhook_deliveries", "webhook_couriers", "webhook_signers", "webhook_endpoints"):
        op.drop_table(table)
