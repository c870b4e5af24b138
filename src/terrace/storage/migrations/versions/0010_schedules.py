"""Schedules and their runs; how often documents are found, and what was found about the corpus."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision: str | None = "0009"


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("name_key", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("cron", sa.String(), nullable=True),
        sa.Column("every", sa.Integer(), nullable=True),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("built_in", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("last_run", sa.String(), nullable=True),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.UniqueConstraint("tenant_id", "name_key", name="uq_schedules_name"),
    )
    op.create_index(
        "ix_schedules_due",
        "schedules",
        ["next_at"],
        sqlite_where=sa.text("next_at IS NOT NULL"),
        postgresql_where=sa.text("next_at IS NOT NULL"),
    )
    op.create_table(
        "schedule_runs",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("schedule_id", sa.String(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("by_hand", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_schedule_runs_schedule", "schedule_runs", ["tenant_id", "schedule_id", "id"])
    op.create_index(
        "ix_schedule_runs_open",
        "schedule_runs",
        ["id"],
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "document_retrievals",
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("document_id", sa.String(), primary_key=True),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "corpus_reports",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("checked_at", sa.Float(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=True),
    )
    op.create_index("ix_corpus_reports_tenant", "corpus_reports", ["tenant_id", "id"])
    op.create_table(
        "corpus_watch",
        sa.Column("tenant_id", sa.String(), primary_key=True),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("seen", sa.String(), nullable=False),
        sa.Column("checked_at", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    for table in ("corpus_watch", "corpus_reports", "document_retrievals", "schedule_runs", "schedules"):
        op.drop_table(table)
