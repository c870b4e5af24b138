"""Contacts, their lists and history, and other databases they come from."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision: str | None = "0013"


def upgrade() -> None:
    op.create_table(
        "contact_lists",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("name_key", sa.String, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.UniqueConstraint("tenant_id", "name_key", name="uq_contact_lists_name"),
    )
    op.create_table(
        "contacts",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.UniqueConstraint("tenant_id", "key", name="uq_contacts_key"),
    )
    op.create_index("ix_contacts_tenant", "contacts", ["tenant_id", "id"])
    op.create_table(
        "contact_memberships",
        sa.Column("list_id", sa.String, sa.ForeignKey("contact_lists.id"), primary_key=True),
        sa.Column("contact_id", sa.String, sa.ForeignKey("contacts.id"), primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
    )
    op.create_index("ix_contact_memberships_contact", "contact_memberships", ["contact_id"])
    op.create_table(
        "contact_turns",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("contact_id", sa.String, sa.ForeignKey("contacts.id"), nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("conversation_id", sa.String),
        sa.Column("user_id", sa.String),
    )
    op.create_index("ix_contact_turns_contact", "contact_turns", ["contact_id", "at", "id"])
    op.create_table(
        "contact_imports",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("list_id", sa.String, nullable=False),
        sa.Column("blob", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("mapping", sa.JSON, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("groups", sa.Integer, nullable=False),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_contact_imports_tenant", "contact_imports", ["tenant_id"])
    op.create_table(
        "databases",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("name_key", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("place", sa.JSON, nullable=False),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("user_id", sa.String),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("tenant_id", "name_key", name="uq_databases_name"),
    )


def downgrade() -> None:
    for table in (
        "databases",
        "contact_imports",
        "contact_turns",
        "contact_memberships",
        "contacts",
        "contact_lists",
    ):
        op.drop_table(table)
