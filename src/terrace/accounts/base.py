"""The words of the accounts room."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from terrace.accounts.roles import PERMISSIONS, Permission, Role
from terrace.types import Scope

Via = Literal["local", "terminal", "session", "key"]
"""local: nobody logs in on this machine yet; terminal: a command of whoever owns the data folder."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from and what it may do. `scope` is all that the rooms below see of it."""

    scope: Scope
    permissions: frozenset[Permission]
    role: Role
    via: Via
    session: str | None = None  # id, when logged in
    cookie: bool = False  # the login came as a cookie: unsafe methods need the CSRF token
    address: str = ""  # of the client, as far as it can be trusted; for the audit log
    expires: float = field(default=float("inf"), compare=False)  # when it must be looked up again, seconds since 1970


LOCAL = Caller(Scope(), PERMISSIONS, "owner", "local")


@dataclass(frozen=True, slots=True)
class User:
    id: str  # usr_...
    name: str
    email: str
    created_at: datetime
    last_login_at: datetime | None = None
    has_password: bool = True  # else they log in by OIDC only
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str  # `default`, or tnt_...
    name: str
    created_at: datetime
    disabled: bool = False
    models: tuple[str, ...] = ()  # patterns; empty: every model
    members: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    user: User
    role: Role
    joined_at: datetime


@dataclass(frozen=True, slots=True)
class Invitation:
    id: str  # inv_...
    tenant_id: str
    tenant_name: str
    email: str | None  # whom alone it lets in
    role: Role
    created_at: datetime
    expires_at: datetime
    invited_by: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    id: str  # ses_...
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str
    agent: str
    current: bool = False


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login gives. `csrf` goes with the cookie form."""

    access_token: str
    refresh_token: str
    expires_in: int  # seconds the access token is good
    csrf: str
    user: User
    tenant: Tenant
    role: Role


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret. `trc_<id without prefix>_<secret>` is what its holder sends."""

    id: str  # key_...
    name: str
    user_id: str | None
    scopes: tuple[str, ...]  # permissions or families; empty: all that its owner may
    models: tuple[str, ...]  # patterns; empty: every model
    addresses: tuple[str, ...]  # networks it may come from; empty: all
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    hint: str  # the last four characters


@dataclass(frozen=True, slots=True)
class AuditEntry:
    id: str  # aud_...
    at: datetime
    actor: str  # a user's id, `terminal`, or `local`
    action: str  # such as `key.created`
    subject: str  # the id of what it was done to
    detail: dict[str, Any]
    address: str
    key_id: str | None = None
