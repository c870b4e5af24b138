"""Who leads, of the processes that could."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision: str | None = "0018"


def upgrade() -> None:
    op.create_table(
        "leaders",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("leaders")
