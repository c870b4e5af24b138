"""Tables of the jobs room."""

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
