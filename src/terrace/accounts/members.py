"""Who belongs to a tenant, and as what: sync functions for `Database.read` and `write`.

Two rules hold everywhere: nobody gives, takes or removes a role above their own, and a tenant keeps an owner who can
log in.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from terrace.accounts import resets, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller, Member, Tenant
from terrace.accounts.limits.base import Subject
from terrace.accounts.roles import FAMILIES, RANK, Role, permissions
from terrace.accounts.tables import (
    InvitationRow,
    KeyRow,
    LimitRow,
    MembershipRow,
    SessionRow,
    TenantRow,
    UserRow,
)
from terrace.errors import Conflict, Denied, Invalid, Missing
from terrace.types import DEFAULT_TENANT, Scope, moment, now

MAX_MEMBERS = 10_000  # of a tenant
MAX_TENANTS = 1_000  # of a person

Adopt = Callable[[Session, str], None]
"""Makes what nobody owned in local mode a user's."""


def page(session: Session, scope: Scope, limit: int, cursor: str | None) -> list[Member]:
    """By when they registered; one more than `limit` where there are more. The cursor is the last user's id."""
    found = (
        select(MembershipRow, UserRow)
        .join(UserRow, col(UserRow.id) == col(MembershipRow.user_id))
        .where(MembershipRow.tenant_id == scope.tenant)
    )
    if cursor is not None:
        found = found.where(col(MembershipRow.user_id) > store.plain(cursor))
    rows = session.exec(found.order_by(col(MembershipRow.user_id)).limit(limit + 1)).all()
    return [_told(row, user) for row, user in rows]


def tenants_of(session: Session, user_id: str) -> list[tuple[Tenant, Role]]:
    """By name."""
    found = (
        select(TenantRow, MembershipRow.role)
        .join(MembershipRow, col(TenantRow.id) == col(MembershipRow.tenant_id))
        .where(MembershipRow.user_id == store.plain(user_id))
        .order_by(col(TenantRow.name_key))
    )
    return [(store.to_tenant(row), store.to_role(role)) for row, role in session.exec(found).all()]


def join(session: Session, tenant_id: str, user_id: str, role: Role, adopt: Sequence[Adopt]) -> None:
    """Raises Conflict. The first owner of `default` adopts what local mode left."""
    if _count(session, MembershipRow.tenant_id == tenant_id) >= MAX_MEMBERS:
        raise Conflict(f"A tenant has at most {MAX_MEMBERS} members.", code="tenant_full")
    if _count(session, MembershipRow.user_id == user_id) >= MAX_TENANTS:
        raise Conflict(f"One belongs to at most {MAX_TENANTS} tenants.", code="too_many_tenants")
    first = (tenant_id, role) == (DEFAULT_TENANT, "owner") and not _count(
        session, MembershipRow.tenant_id == tenant_id, MembershipRow.role == "owner"
    )
    session.add(MembershipRow(tenant_id=tenant_id, user_id=user_id, role=role, created_at=now()))
    session.flush()
    if first:
        for take in adopt:
            take(session, user_id)


def set_role(session: Session, audit: Audit, caller: Caller, user_id: str, role: Role) -> Member:
    """Raises Invalid, Missing, Denied, Conflict."""
    row, user = _find(session, caller.scope.tenant, user_id)
    before = store.to_role(row.role)
    check_rank(caller, row.tenant_id, role)
    check_rank(caller, row.tenant_id, before)
    if role == before:
        return _told(row, user)
    if before == "owner":
        check_last_owner(session, row.tenant_id, user_id)
    if RANK[role] > RANK[before]:  # whoever has a link to their password was not to rise with them
        resets.close_all(session, user_id, now())
    row.role = role
    session.add(row)
    withdraw(session, user_id, row.tenant_id, above=role)
    audit.record(session, caller, "member.role_changed", user_id, before=before, after=role)
    return _told(row, user)


def remove(session: Session, audit: Audit, caller: Caller, user_id: str) -> None:
    """Their keys and logins there end. Raises Missing, Denied, Conflict."""
    row, _ = _find(session, caller.scope.tenant, user_id)
    role = store.to_role(row.role)
    check_rank(caller, row.tenant_id, role)
    if role == "owner":
        check_last_owner(session, row.tenant_id, user_id)
    theirs = {"tenant_id": row.tenant_id, "user_id": user_id}
    session.exec(update(KeyRow).filter_by(**theirs, revoked_at=None).values(revoked_at=now()))
    session.exec(update(SessionRow).filter_by(**theirs, revoked_at=None).values(revoked_at=now()))
    session.exec(delete(LimitRow).filter_by(tenant_id=row.tenant_id, subject_kind="user", subject_id=user_id))
    withdraw(session, user_id, row.tenant_id)
    session.delete(row)
    audit.record(session, caller, "member.removed", user_id, role=role)


def withdraw(session: Session, user_id: str, tenant_id: str | None = None, *, above: Role | None = None) -> None:
    """Revoke the open invitations a user gave: all, or those to more than the role they have now."""
    given = update(InvitationRow).filter_by(invited_by=user_id, accepted_at=None, revoked_at=None)
    if tenant_id is not None:
        given = given.filter_by(tenant_id=tenant_id)
    if above is not None:
        given = given.where(col(InvitationRow.role).in_([role for role in RANK if RANK[role] > RANK[above]]))
    session.exec(given.values(revoked_at=now()))


def check_rank(caller: Caller, tenant_id: str, role: Role) -> None:
    """That the caller may give or take `role`. A key gives no administrative permission that it lacks itself.

    Raises Invalid for what is no role, and Denied.
    """
    if role not in RANK:
        raise Invalid(f"There is no role {role!r:.40}: take one of {', '.join(RANK)}.", code="bad_role")
    operator = tenant_id == DEFAULT_TENANT and role == "owner"
    given = permissions(role, operator=operator) & FAMILIES["admin"]
    if RANK[role] > RANK[caller.role] or not given <= caller.permissions:
        whose = "what this key may do" if caller.via == "key" else f"your own ({caller.role})"
        raise Denied(f"The role {role} is above {whose}. Ask an owner.", code="role_above_yours")


def check_limits(session: Session, caller: Caller, subject: Subject) -> None:
    """That they bind nobody above the caller, whether as a person or by a key of theirs. Raises Denied."""
    user_id = subject.id
    if subject.kind == "key":
        key = session.get(KeyRow, subject.id)
        user_id = (key.user_id or "") if key is not None else ""
    row = store.membership(session, subject.tenant, user_id)
    if row is not None and RANK[store.to_role(row.role)] > RANK[caller.role]:
        raise Denied("They are above you in this tenant. Ask an owner.", code="above_you")


def check_last_owner(session: Session, tenant_id: str, user_id: str) -> None:
    """Raises Conflict when nobody else owns it."""
    tenant = store.tenant(session, tenant_id, lock=True)  # two owners may be at it at once
    if tenant is not None and not store.owners(session, tenant_id, but=user_id):
        raise Conflict(
            f"This is the last owner of {tenant.name}. Make another member an owner first.",
            code="last_owner",
            tenant=tenant_id,
        )


def _find(session: Session, tenant_id: str, user_id: str) -> tuple[MembershipRow, UserRow]:
    row, user = store.membership(session, tenant_id, user_id), store.user_by_id(session, user_id)
    if row is None or user is None:
        raise Missing("No such member.", code="member_missing")
    return row, user


def _count(session: Session, *where: bool) -> int:
    return session.exec(select(func.count()).select_from(MembershipRow).where(*where)).one()


def _told(row: MembershipRow, user: UserRow) -> Member:
    return Member(store.to_user(user), store.to_role(row.role), moment(row.created_at))
