"""Who a credential belongs to, and what that lets them do: sync functions for `Database.read`.

The one place where roles, tenants, keys and sessions become a `Caller`. Whoever holds the credential has proved it by
then, so the sentences may say what is wrong with it.
"""

import math
from dataclasses import replace
from typing import cast

from sqlalchemy import and_
from sqlmodel import Session, col, select

from terrace.accounts.base import Caller
from terrace.accounts.credentials import Credential, same
from terrace.accounts.roles import PERMISSIONS, Role, permissions
from terrace.accounts.scopes import comes_from, expand
from terrace.accounts.store import plain, tenant, to_role
from terrace.accounts.tables import KeyRow, MembershipRow, SessionRow, TenantRow, UserRow
from terrace.accounts.tokens import LEEWAY, Claims
from terrace.errors import Denied, Missing, Unauthenticated
from terrace.types import DEFAULT_TENANT, Scope

_Found = tuple[KeyRow, TenantRow, UserRow | None, MembershipRow | None]


def of_key(session: Session, shown: Credential, address: str, at: float) -> Caller:
    """Raises Unauthenticated, Denied."""
    found = _key(session, shown.id)
    return _holder(found, address, at, _proved(found[0], shown.secret))


def now_of(session: Session, caller: Caller, at: float) -> Caller:
    """Somebody who has logged in or shown a key before, as they are now. Raises Unauthenticated, Denied."""
    if caller.scope.key is not None:
        return _holder(_key(session, caller.scope.key), caller.address, at, caller.expires)
    claims = Claims(caller.scope.user or "", caller.session or "", caller.scope.tenant, caller.expires)
    return of_login(session, claims, caller.address, at, cookie=caller.cookie)


def _key(session: Session, key_id: str) -> _Found:
    """With whom it belongs to. Raises Unauthenticated."""
    found = session.exec(
        select(KeyRow, TenantRow, UserRow, MembershipRow)
        .join(TenantRow, col(TenantRow.id) == col(KeyRow.tenant_id))
        .outerjoin(UserRow, col(UserRow.id) == col(KeyRow.user_id))
        .outerjoin(
            MembershipRow,
            and_(
                col(MembershipRow.tenant_id) == col(KeyRow.tenant_id), col(MembershipRow.user_id) == col(KeyRow.user_id)
            ),
        )
        .where(KeyRow.id == key_id)
    ).one_or_none()
    if found is None:
        raise bad_key()
    return cast("_Found", tuple(found))


def _holder(found: _Found, address: str, at: float, until: float) -> Caller:
    """`until`: when what they have shown is good no more."""
    key, home, user, membership = found
    if key.revoked_at is not None:
        raise Unauthenticated("This API key was revoked. Make another one.", code="key_revoked")
    if key.expires_at is not None and key.expires_at <= at:
        raise Unauthenticated("This API key has expired. Make another one.", code="key_expired")
    if until <= at:
        raise Unauthenticated("This API key was replaced by a newer one: use that.", code="key_rotated")
    if key.addresses and not comes_from(address, key.addresses):
        raise Denied("This API key may not be used from your address.", code="address_not_allowed")
    # A key made at the terminal has no owner: it may do what an owner of its tenant may.
    role = "owner" if key.user_id is None else _role(user, membership)
    caller = _caller(home, key.user_id, role)
    allowed = caller.permissions & expand(key.scopes) if key.scopes else caller.permissions
    walls = (*caller.scope.models, frozenset(key.models)) if key.models else caller.scope.models
    return replace(
        caller,
        scope=replace(caller.scope, key=key.id, models=walls),
        permissions=allowed,
        via="key",
        address=address,
        expires=min(until, math.inf if key.expires_at is None else key.expires_at),
    )


def of_login(session: Session, claims: Claims, address: str, at: float, *, cookie: bool) -> Caller:
    """Raises Unauthenticated, Denied."""
    found = session.exec(
        select(SessionRow, UserRow)
        .join(UserRow, col(UserRow.id) == col(SessionRow.user_id))
        .where(SessionRow.id == plain(claims.session), SessionRow.user_id == plain(claims.user))
    ).one_or_none()
    if found is None:
        raise Unauthenticated("This login is not known any more. Log in again.", code="session_revoked")
    login, user = found
    if login.revoked_at is not None:
        raise Unauthenticated("This login was ended. Log in again.", code="session_revoked")
    if login.expires_at <= at:
        raise Unauthenticated("This login has expired. Log in again.", code="session_expired")
    caller = member(session, user, claims.tenant)
    return replace(caller, session=login.id, cookie=cookie, address=address, expires=claims.expires + LEEWAY)


def member(session: Session, user: UserRow | None, tenant_id: str) -> Caller:
    """What they may do in that tenant, as someone who has logged in. Raises Unauthenticated, Denied."""
    found = session.exec(
        select(MembershipRow, TenantRow)
        .join(TenantRow, col(TenantRow.id) == col(MembershipRow.tenant_id))
        .where(MembershipRow.tenant_id == plain(tenant_id), MembershipRow.user_id == (user.id if user else ""))
    ).one_or_none()
    role = _role(user, found[0] if found else None)
    assert found is not None
    assert user is not None
    return _caller(found[1], user.id, role)


def at_terminal(session: Session, tenant_id: str, address: str) -> Caller:
    """Whoever owns the data folder may do all, in the tenant they name. Raises Missing."""
    row = tenant(session, tenant_id)
    if row is None and tenant_id != DEFAULT_TENANT:
        raise Missing("There is no such tenant.", code="tenant_missing")
    walls = (frozenset(row.models),) if row is not None and row.models else ()
    return Caller(Scope(tenant_id, models=walls), PERMISSIONS, "owner", "terminal", address=address)


def bad_key() -> Unauthenticated:
    return Unauthenticated("This API key is not one of ours. Check that it was copied whole.", code="key_invalid")


def _proved(key: KeyRow, secret: str) -> float:
    """Until when the secret is good: a rotated key's old one has a time of its own. Raises Unauthenticated."""
    if same(secret, key.secret_hash):
        return math.inf
    if same(secret, key.previous_hash):
        return key.previous_until or 0.0
    raise bad_key()


def _role(user: UserRow | None, membership: MembershipRow | None) -> Role:
    if user is None or user.disabled_at is not None:
        raise Unauthenticated("This account was disabled. Ask whoever runs this server.", code="account_disabled")
    if membership is None:
        raise Unauthenticated("You are not a member of this tenant any more. Log in again.", code="not_a_member")
    return to_role(membership.role)


def _caller(home: TenantRow, user_id: str | None, role: Role) -> Caller:
    if home.disabled_at is not None:
        raise Denied("This tenant was disabled. Ask whoever runs this server.", code="tenant_disabled")
    walls = (frozenset(home.models),) if home.models else ()
    allowed = permissions(role, operator=role == "owner" and home.id == DEFAULT_TENANT)
    return Caller(Scope(home.id, user_id, models=walls), allowed, role, "session")
