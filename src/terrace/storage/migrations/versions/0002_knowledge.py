"""Tables of the knowledge room."""

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
