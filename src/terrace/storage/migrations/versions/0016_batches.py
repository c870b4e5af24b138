"""OpenAI's files and batches."""

revision = "0016"
down_revision: str | None = "0015"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
