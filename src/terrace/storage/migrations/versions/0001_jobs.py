"""Tables of the jobs room."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("lane", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("run_at", sa.Float),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("dead", sa.Boolean, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("progress", sa.Text),
        sa.Column("user_id", sa.String),
        sa.Column("parent_id", sa.String),
        sa.Column("idempotency_key", sa.String),
        sa.Column("worker_id", sa.String),
        sa.Column("lease_until", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("finished_at", sa.Float),
    )
    op.create_index("ix_jobs_tenant", "jobs", ["tenant_id", "id"])
    op.create_index("ix_jobs_updated", "jobs", ["tenant_id", "updated_at"])
    queued = ["lane", "tenant_id", sa.text("priority DESC"), "run_at", "id"]
    _partial("ix_jobs_queued", queued, "state = 'queued'")
    _partial("ix_jobs_waiting", ["run_at", "tenant_id"], "state = 'waiting'")
    _partial("ix_jobs_running", ["tenant_id", "worker_id"], "state = 'running'")
    _partial("ix_jobs_failed", ["tenant_id", "id"], "state = 'failed'")
    _partial("ix_jobs_parent", ["parent_id", "state"], "parent_id IS NOT NULL")
    _partial(
        "ix_jobs_idempotency", ["tenant_id", "kind", "idempotency_key"], "idempotency_key IS NOT NULL", unique=True
    )

    op.create_table(
        "job_events",
        sa.Column("tenant_id", sa.String, primary_key=True),
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_workers",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("process", sa.String, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("heartbeat_at", sa.Float, nullable=False),
    )


def _partial(name: str, columns: list[object], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, "jobs", columns, unique=unique, sqlite_where=condition, postgresql_where=condition)  # type: ignore[arg-type]


def downgrade() -> None:
    op.drop_table("job_workers")
    op.drop_table("job_events")
    op.drop_table("jobs")
