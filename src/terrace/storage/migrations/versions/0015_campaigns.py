"""Templates, campaigns and their messages."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision: str | None = "0014"

LIVE = sa.text("deleted_at IS NULL")
ENDED = sa.text("seq IS NOT NULL")


def _count(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.Integer(), nullable=False)


def _large(name: str, *, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "templates",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("name_key", sa.String(), nullable=False),
        _count("version"),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("deleted_at", sa.Float(), nullable=True),
    )
    op.create_index("ix_templates_tenant", "templates", ["tenant_id", "id"])
    op.create_index(
        "uq_templates_name", "templates", ["tenant_id", "name_key"], unique=True,
        sqlite_where=LIVE, postgresql_where=LIVE,
    )  # fmt: skip
    op.create_table(
        "template_versions",
        sa.Column("template_id", sa.String(), sa.ForeignKey("templates.id"), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("system", sa.Text(), nullable=False),
        sa.Column("knowledge_query", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "campaigns",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("list_id", sa.String(), nullable=False),
        sa.Column("template_id", sa.String(), nullable=False),
        _count("template_version"),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=True),
        sa.Column("walls", sa.JSON(), nullable=True),
        sa.Column("collection", sa.String(), nullable=True),
        _large("budget", nullable=True),
        _count("concurrency"),
        sa.Column("start_at", sa.Float(), nullable=True),
        sa.Column("webhook", sa.Text(), nullable=True),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("preview", sa.JSON(), nullable=True),
        sa.Column("preview_job", sa.String(), nullable=True),
        sa.Column("reached", sa.String(), nullable=True),
        sa.Column("prepared", sa.Boolean(), nullable=False),
        *(_count(each) for each in ("total", "writing", "done", "failed", "skipped", "approved", "in_row", "seq")),
        *(_large(each) for each in ("spent", "reserved", "preview_reserved", "input_tokens", "output_tokens")),
        _count("unpriced"),
        sa.Column("request_key", sa.String(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.UniqueConstraint("tenant_id", "request_key", name="uq_campaigns_request"),
    )
    op.create_index("ix_campaigns_tenant", "campaigns", ["tenant_id", "id"])
    op.create_table(
        "campaign_messages",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("campaign_id", sa.String(), sa.ForeignKey("campaigns.id"), nullable=False),
        sa.Column("contact_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("sources", sa.Text(), nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        _large("cost"),
        _large("reserved"),
        *(_count(each) for each in ("attempt", "unpriced", "input_tokens", "output_tokens")),
        sa.Column("edited_at", sa.Float(), nullable=True),
        sa.Column("approved_at", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.UniqueConstraint("campaign_id", "contact_id", name="uq_campaign_messages_contact"),
    )
    op.create_index("ix_campaign_messages_state", "campaign_messages", ["campaign_id", "state", "id"])
    op.create_index(
        "ix_campaign_messages_seq", "campaign_messages", ["campaign_id", "seq"],
        sqlite_where=ENDED, postgresql_where=ENDED,
    )  # fmt: skip


def downgrade() -> None:
    for table in ("campaign_messages", "campaigns", "template_versions", "templates"):
        op.drop_table(table)
