"""Invitations into a tenant: good once, for a while, until revoked, and for one e-mail address where it names one."""

import re

from sqlalchemy import ColumnElement, delete, func, or_, update
from sqlmodel import Session, col, select

from terrace.accounts import store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller, Invitation
from terrace.accounts.credentials import digest, new_secret, same
from terrace.accounts.members import check_rank
from terrace.accounts.roles import Role
from terrace.accounts.tables import InvitationRow, TenantRow
from terrace.errors import Conflict, Denied, Missing
from terrace.types import DEFAULT_TENANT, Scope, moment, new_id

MAX_OPEN = 1_000  # of a tenant
_TOKEN = re.compile(r"tri_([0-9a-z]{26})_([A-Za-z0-9_-]{43})")


def invite(
    session: Session,
    audit: Audit,
    caller: Caller,
    key: str | None,
    role: Role,
    tenant_id: str,
    at: float,
    seconds: float,
) -> tuple[Invitation, str]:
    """`key`: of the e-mail address whom alone it lets in. Raises Invalid, Denied, Missing, Conflict."""
    tenant = _tenant(session, caller, tenant_id)
    check_rank(caller, tenant.id, role)
    if tenant.disabled_at is not None:
        raise Conflict("That tenant is disabled: nobody can join it.", code="tenant_disabled")
    _check_newcomer(session, tenant.id, key)
    _make_room(session, tenant.id, at)
    secret = new_secret()
    row = InvitationRow(
        id=new_id("inv"),
        tenant_id=tenant.id,
        email=key,
        role=role,
        secret_hash=digest(secret),
        created_at=at,
        expires_at=at + seconds,
        invited_by=caller.scope.user,
    )
    session.add(row)
    audit.record(session, caller, "invitation.created", row.id, tenant=tenant.id, role=role)
    return _told(row, tenant), f"tri_{row.id.removeprefix('inv_')}_{secret}"


def open_of(session: Session, scope: Scope, at: float) -> list[Invitation]:
    """Those that can still be accepted, newest first; at most MAX_OPEN."""
    tenant = store.tenant(session, scope.tenant)
    if tenant is None:
        return []
    found = select(InvitationRow).where(InvitationRow.tenant_id == tenant.id, *_open(at))
    rows = session.exec(found.order_by(col(InvitationRow.id).desc()).limit(MAX_OPEN)).all()
    return [_told(row, tenant) for row in rows]


def revoke(session: Session, audit: Audit, caller: Caller, invitation_id: str, at: float) -> None:
    """Raises Missing, Denied."""
    row = session.get(InvitationRow, store.plain(invitation_id))
    mine = row is not None and (row.tenant_id == caller.scope.tenant or "operator" in caller.permissions)
    if row is None or not mine or row.accepted_at is not None or row.revoked_at is not None:
        raise Missing("No such open invitation.", code="invitation_missing")
    check_rank(caller, row.tenant_id, store.to_role(row.role))
    row.revoked_at = at
    session.add(row)
    audit.record(session, caller, "invitation.revoked", row.id, tenant=row.tenant_id)


def look(session: Session, token: str, at: float) -> Invitation:
    """What it offers. Raises Missing."""
    return _told(*_find(session, token, at))


def check(session: Session, token: str, key: str, at: float) -> Invitation:
    """What it offers to the owner of the e-mail address. Raises Missing, Denied, Conflict."""
    row, tenant = _find(session, token, at)
    if row.email is not None and row.email != key:
        raise Denied(
            "This invitation is for another e-mail address. Take the one it was sent to.", code="invitation_not_yours"
        )
    if tenant.disabled_at is not None:
        raise Conflict("That tenant is disabled: nobody can join it.", code="tenant_disabled")
    return _told(row, tenant)


def use(session: Session, token: str, key: str, at: float) -> Invitation:
    """As `check`; and it is good no more."""
    invitation = check(session, token, key, at)
    used = update(InvitationRow).where(col(InvitationRow.id) == invitation.id, *_open(at)).values(accepted_at=at)
    if session.exec(used).rowcount != 1:  # somebody was quicker
        raise _bad()
    return invitation


def _tenant(session: Session, caller: Caller, tenant_id: str) -> TenantRow:
    if tenant_id == caller.scope.tenant or "operator" in caller.permissions:
        row = store.default_tenant(session) if tenant_id == DEFAULT_TENANT else store.tenant(session, tenant_id)
        if row is not None:
            return row
    raise Missing("No such tenant.", code="tenant_missing")


def _check_newcomer(session: Session, tenant_id: str, key: str | None) -> None:
    user = store.user_by_email(session, key) if key is not None else None
    if user is not None and store.membership(session, tenant_id, user.id) is not None:
        raise Conflict("They belong to it already. Change their role instead.", code="already_member")


def _make_room(session: Session, tenant_id: str, at: float) -> None:
    """What is over goes (the audit log remembers it). Raises Conflict when too many are open."""
    mine = col(InvitationRow.tenant_id) == tenant_id
    over = or_(
        col(InvitationRow.accepted_at).is_not(None),
        col(InvitationRow.revoked_at).is_not(None),
        col(InvitationRow.expires_at) <= at,
    )
    session.exec(delete(InvitationRow).where(mine, over))
    if session.exec(select(func.count()).select_from(InvitationRow).where(mine)).one() >= MAX_OPEN:
        raise Conflict(
            f"This tenant has {MAX_OPEN} open invitations. Revoke some that are not needed.",
            code="too_many_invitations",
        )


def _find(session: Session, token: str, at: float) -> tuple[InvitationRow, TenantRow]:
    found = _TOKEN.fullmatch(token.strip()) if len(token) < 200 else None
    if found is None:
        raise _bad()
    row = session.exec(select(InvitationRow).where(InvitationRow.id == f"inv_{found[1]}", *_open(at))).one_or_none()
    tenant = store.tenant(session, row.tenant_id) if row is not None else None
    if row is None or tenant is None or not same(found[2], row.secret_hash):
        raise _bad()
    return row, tenant


def _open(at: float) -> tuple[ColumnElement[bool], ...]:
    return (
        col(InvitationRow.accepted_at).is_(None),
        col(InvitationRow.revoked_at).is_(None),
        col(InvitationRow.expires_at) > at,
    )


def _bad() -> Missing:
    return Missing(
        "This invitation is not good: it was used, revoked or has expired. Ask for a new one.", code="invitation_bad"
    )


def _told(row: InvitationRow, tenant: TenantRow) -> Invitation:
    return Invitation(
        row.id,
        tenant.id,
        tenant.name,
        row.email,
        store.to_role(row.role),
        moment(row.created_at),
        moment(row.expires_at),
        row.invited_by,
    )
