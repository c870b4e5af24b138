"""Stored answers."""

revision = "0017"
down_revision: str | None = "0016"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
