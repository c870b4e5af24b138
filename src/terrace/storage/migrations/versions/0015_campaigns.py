"""Templates, campaigns and their messages."""

revision = "0015"
down_revision: str | None = "0014"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
