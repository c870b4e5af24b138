"""What is kept of other databases."""

from typing import Any

from sqlalchemy import JSON, Column, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


class DatabaseRow(SQLModel, table=True):
    __tablename__ = "databases"
    __table_args__ = (UniqueConstraint("tenant_id", "name_key", name="uq_databases_name"),)

    id: str = Field(primary_key=True)  # dbs_...
    tenant_id: str
    name: str
    name_key: str
    kind: str  # postgresql | mysql | sqlite
    place: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # host, port, database, tls ... no secrets
    sealed: str = Field(sa_column=Column(Text, nullable=False))  # user and password, as only this installation reads
    user_id: str | None = None  # who added it
    created_at: float
