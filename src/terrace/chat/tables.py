"""What the chat room keeps. Messages form a tree: each names the one it follows."""

from typing import Any

from sqlalchemy import JSON, Column, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


def _json() -> Column[Any]:
    return Column(JSON(none_as_null=True), nullable=True)


class ConversationRow(SQLModel, table=True):
    __tablename__ = "conversations"
    __table_args__ = (
        Index("ix_conversations_latest", "tenant_id", "user_id", "updated_at", "id"),
        Index("ix_conversations_newest", "tenant_id", "user_id", "id"),
    )

    id: str = Field(primary_key=True)  # cnv_..., qst_... where it is a question asked by itself
    tenant_id: str
    user_id: str | None = None
    title: str
    head_id: str | None = None  # the last message of the visible branch
    created_at: float
    updated_at: float


class MessageRow(SQLModel, table=True):
    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("tenant_id", "request_key", name="uq_messages_request"),
        Index("ix_messages_conversation", "tenant_id", "conversation_id", "id"),
    )

    id: str = Field(primary_key=True)  # msg_...
    tenant_id: str
    conversation_id: str = Field(foreign_key="conversations.id")
    parent_id: str | None = None
    role: str  # user | assistant
    content: str = Field(sa_column=Column(Text, nullable=False))
    model: str | None = None
    state: str  # running | complete | stopped | failed
    sources: list[dict[str, Any]] | None = Field(default=None, sa_column=_json())
    usage: dict[str, Any] | None = Field(default=None, sa_column=_json())
    job_id: str | None = None
    error: dict[str, Any] | None = Field(default=None, sa_column=_json())
    options: dict[str, Any] | None = Field(default=None, sa_column=_json())  # how an answer was asked for
    cached_at: float | None = None  # of an answer from the cache: when it was written
    request_key: str | None = None  # of a question: whose asking, and their Idempotency-Key
    created_at: float
