"""Somebody's questions, newest first, however many they asked."""

from alembic import op

revision = "0007"
down_revision: str | None = "0006"


def upgrade() -> None:
    op.create_index("ix_conversations_newest", "conversations", ["tenant_id", "user_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_conversations_newest", "conversations")
