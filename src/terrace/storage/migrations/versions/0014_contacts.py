"""Contacts, their lists and history, and other databases they come from."""

revision = "0014"
down_revision: str | None = "0013"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
