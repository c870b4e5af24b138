"""What is kept of contacts. Times are epoch seconds."""

from typing import Any

from sqlalchemy import JSON, Column, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


class ContactListRow(SQLModel, table=True):
    __tablename__ = "contact_lists"
    __table_args__ = (UniqueConstraint("tenant_id", "name_key", name="uq_contact_lists_name"),)

    id: str = Field(primary_key=True)  # lst_...
    tenant_id: str
    name: str
    name_key: str  # the name case-folded: "Clients" and "clients" are one list
    revision: int = 0  # grows with every change to it or to a contact in it
    created_at: float
    updated_at: float


class ContactRow(SQLModel, table=True):
    __tablename__ = "contacts"
    __table_args__ = (
        UniqueConstraint("tenant_id", "key", name="uq_contacts_key"),
        Index("ix_contacts_tenant", "tenant_id", "id"),
    )

    id: str = Field(primary_key=True)  # ctc_...
    tenant_id: str
    key: str
    name: str
    email: str
    fields: str = Field(sa_column=Column(Text, nullable=False))  # a JSON object of texts, none empty, by name
    words: str = Field(sa_column=Column(Text, nullable=False))  # key, name and e-mail case-folded, for finding
    created_at: float
    updated_at: float


class MembershipRow(SQLModel, table=True):
    __tablename__ = "contact_memberships"
    __table_args__ = (Index("ix_contact_memberships_contact", "contact_id"),)

    list_id: str = Field(primary_key=True, foreign_key="contact_lists.id")
    contact_id: str = Field(primary_key=True, foreign_key="contacts.id")
    tenant_id: str


class TurnRow(SQLModel, table=True):
    __tablename__ = "contact_turns"
    __table_args__ = (Index("ix_contact_turns_contact", "contact_id", "at", "id"),)

    id: str = Field(primary_key=True)  # trn_...
    tenant_id: str
    contact_id: str = Field(foreign_key="contacts.id")
    role: str  # user | assistant
    text: str = Field(sa_column=Column(Text, nullable=False))
    at: float
    conversation_id: str | None = None  # the chat it was copied from
    user_id: str | None = None  # whose chat that is: it goes when they do


class ImportRow(SQLModel, table=True):
    """An import under way: how far it is stands here, written with the rows themselves."""

    __tablename__ = "contact_imports"
    __table_args__ = (Index("ix_contact_imports_tenant", "tenant_id"),)

    id: str = Field(primary_key=True)  # imp_...
    tenant_id: str
    list_id: str
    blob: str  # the file as it was sent, or the rows a query gave
    name: str
    mapping: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))  # column -> field
    options: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # how it is to be read, or the query
    groups: int = 0  # groups of rows that are in
    counts: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))
    created_at: float
