"""What is kept of templates. Times are epoch seconds. A version never changes."""

from sqlalchemy import Column, Index, Text, text
from sqlmodel import Field, SQLModel


class TemplateRow(SQLModel, table=True):
    __tablename__ = "templates"
    __table_args__ = (
        Index("ix_templates_tenant", "tenant_id", "id"),
        Index(
            "uq_templates_name", "tenant_id", "name_key", unique=True,
            sqlite_where=text("deleted_at IS NULL"), postgresql_where=text("deleted_at IS NULL"),
        ),
    )  # fmt: skip

    id: str = Field(primary_key=True)  # tpl_...
    tenant_id: str
    name: str
    name_key: str  # case-folded
    version: int  # the newest
    created_at: float
    updated_at: float
    deleted_at: float | None = None  # hidden; its versions stay while a campaign has pinned one


class TemplateVersionRow(SQLModel, table=True):
    __tablename__ = "template_versions"

    template_id: str = Field(primary_key=True, foreign_key="templates.id")
    version: int = Field(primary_key=True)
    tenant_id: str
    mode: str  # write: a prompt for the model; fill: the message itself
    body: str = Field(sa_column=Column(Text, nullable=False))
    system: str = Field(sa_column=Column(Text, nullable=False))
    knowledge_query: str = Field(sa_column=Column(Text, nullable=False))
    created_by: str | None = None
    created_at: float
