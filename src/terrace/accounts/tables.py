"""What the accounts room keeps. Secrets are stored as SHA-256 of 256 random bits, passwords as argon2id."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index
from sqlmodel import Field, SQLModel


def _list() -> Column[Any]:
    return Column(JSON, nullable=False)


class TenantRow(SQLModel, table=True):
    __tablename__ = "tenants"

    id: str = Field(primary_key=True)  # `default`, or tnt_...
    name: str
    name_key: str = Field(unique=True)  # case-folded
    models: list[str] = Field(default=[], sa_column=_list())
    created_at: float
    disabled_at: float | None = None


class UserRow(SQLModel, table=True):
    """A person. They belong to no tenant but through a membership."""

    __tablename__ = "users"

    id: str = Field(primary_key=True)  # usr_...
    name: str
    email: str
    email_key: str = Field(unique=True)  # case-folded
    password_hash: str | None = None  # None: logs in elsewhere (OIDC) only
    created_at: float
    last_login_at: float | None = None
    disabled_at: float | None = None


class IdentityRow(SQLModel, table=True):
    """Who a person is at an OIDC provider: its issuer and their `sub` there."""

    __tablename__ = "identities"
    __table_args__ = (Index("ix_identities_user", "user_id"),)

    issuer: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id")
    created_at: float


class MembershipRow(SQLModel, table=True):
    __tablename__ = "memberships"
    __table_args__ = (Index("ix_memberships_user", "user_id"),)

    tenant_id: str = Field(primary_key=True, foreign_key="tenants.id")
    user_id: str = Field(primary_key=True, foreign_key="users.id")
    role: str
    created_at: float


class InvitationRow(SQLModel, table=True):
    __tablename__ = "invitations"
    __table_args__ = (Index("ix_invitations_tenant", "tenant_id", "id"),)

    id: str = Field(primary_key=True)  # inv_...
    tenant_id: str = Field(foreign_key="tenants.id")
    email: str | None = None  # whom alone it lets in
    role: str
    secret_hash: str
    created_at: float
    expires_at: float
    invited_by: str | None = None
    accepted_at: float | None = None
    revoked_at: float | None = None


class ResetRow(SQLModel, table=True):
    """A link to a new password. Good once."""

    __tablename__ = "password_resets"
    __table_args__ = (Index("ix_password_resets_user", "user_id"),)

    id: str = Field(primary_key=True)  # rst_...
    user_id: str = Field(foreign_key="users.id")
    secret_hash: str
    created_at: float
    expires_at: float
    used_at: float | None = None


class SessionRow(SQLModel, table=True):
    """A login, and its family of refresh tokens: only the one of the latest generation is good."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_user", "user_id", "id"),)

    id: str = Field(primary_key=True)  # ses_...
    tenant_id: str  # the one they work in
    user_id: str = Field(foreign_key="users.id")
    generation: int = 1
    refresh_hash: str
    address: str = ""
    agent: str = ""
    created_at: float
    last_used_at: float
    expires_at: float
    revoked_at: float | None = None


class KeyRow(SQLModel, table=True):
    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_tenant", "tenant_id", "user_id", "id"),)

    id: str = Field(primary_key=True)  # key_...
    tenant_id: str = Field(foreign_key="tenants.id")
    user_id: str | None = None  # whose it is; None: made at the terminal
    name: str
    scopes: list[str] = Field(default=[], sa_column=_list())
    models: list[str] = Field(default=[], sa_column=_list())
    addresses: list[str] = Field(default=[], sa_column=_list())
    secret_hash: str
    hint: str
    previous_hash: str | None = None  # good until previous_until, after a rotation
    previous_until: float | None = None
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None


class LimitRow(SQLModel, table=True):
    __tablename__ = "limits"

    tenant_id: str = Field(primary_key=True)
    subject_kind: str = Field(primary_key=True)  # tenant | user | key
    subject_id: str = Field(primary_key=True)  # empty for the tenant
    name: str = Field(primary_key=True)
    value: int = Field(sa_column=Column(BigInteger, nullable=False))  # money in picodollars
    set_by: str
    set_at: float


class GuessRow(SQLModel, table=True):
    """Failures to log in, by account or by address: nobody's rows, as some of the accounts do not exist."""

    __tablename__ = "guesses"
    __table_args__ = (Index("ix_guesses_latest", "latest"),)

    key: str = Field(primary_key=True)  # a hash of what was guessed at
    failures: list[float] = Field(default=[], sa_column=_list())
    latest: float = 0.0
    beyond: int = 0


class AuditRow(SQLModel, table=True):
    """Every administrative act. The database itself refuses to change or delete a line."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_tenant", "tenant_id", "id"),)

    id: str = Field(primary_key=True)  # aud_...
    tenant_id: str
    at: float
    actor: str  # a user's id, `terminal` or `local`
    key_id: str | None = None
    action: str
    subject: str
    detail: dict[str, Any] = Field(default={}, sa_column=Column(JSON, nullable=False))
    address: str = ""
