"""Failed logins, counted where every process sees them."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision: str | None = "0021"


def upgrade() -> None:
    op.create_table(
        "guesses",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("failures", sa.JSON(), nullable=False),
        sa.Column("latest", sa.Float(), nullable=False),
        sa.Column("beyond", sa.Integer(), nullable=False),
    )
    op.create_index("ix_guesses_latest", "guesses", ["latest"])


def downgrade() -> None:
    op.drop_table("guesses")
