"""Documents analysed."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision: str | None = "0012"


def upgrade() -> None:
    op.create_table(
        "analyses",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("user_id", sa.String),
        sa.Column("key_id", sa.String),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("fields_schema", sa.JSON),
        sa.Column("wanted_model", sa.String),
        sa.Column("webhook", sa.String),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("request_key", sa.String),
        sa.Column("blob", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("pages", sa.Integer),
        sa.Column("pages_done", sa.Integer, nullable=False),
        sa.Column("way", sa.String),
        sa.Column("why", sa.String, nullable=False),
        sa.Column("model", sa.String),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("usage", sa.JSON),
        sa.Column("cost", sa.Float),
        sa.Column("error", sa.JSON),
        sa.Column("job_id", sa.String),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("finished_at", sa.Float),
        sa.UniqueConstraint("tenant_id", "request_key", name="uq_analyses_request"),
    )
    op.create_index("ix_analyses_own", "analyses", ["tenant_id", "user_id", "id"])
    op.create_index("ix_analyses_saving", "analyses", ["state", "updated_at"])
    op.create_table(
        "analysis_pages",
        sa.Column("analysis_id", sa.String, sa.ForeignKey("analyses.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("read_by", sa.String),
        sa.Column("blob", sa.String),
        sa.Column("media_type", sa.String),
        sa.Column("width", sa.Integer),
        sa.Column("height", sa.Integer),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "analysis_steps",
        sa.Column("analysis_id", sa.String, sa.ForeignKey("analyses.id"), primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("finish", sa.String),
        sa.Column("model", sa.String),
        sa.Column("usage", sa.JSON),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("error", sa.JSON),
    )


def downgrade() -> None:
    for table in ("analysis_steps", "analysis_pages", "analyses"):
        op.drop_table(table)
