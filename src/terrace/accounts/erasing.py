"""What goes when a person or a tenant goes. Audit lines and the numbers of the ledger stay, with ids and no names."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import delete
from sqlmodel import Session, col, select

from terrace.accounts import members, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller
from terrace.accounts.tables import (
    IdentityRow,
    InvitationRow,
    KeyRow,
    LimitRow,
    MembershipRow,
    ResetRow,
    SessionRow,
    TenantRow,
    UserRow,
)
from terrace.types import Scope

EraseUser = Callable[[Session, str], None]
"""A room's: deletes what is a user's, in every tenant."""
EraseTenant = Callable[[Session, Scope], None]
"""A room's: deletes what is a tenant's."""


def erase_user(session: Session, audit: Audit, rooms: Sequence[EraseUser], caller: Caller, row: UserRow) -> None:
    """Raises Conflict when they are the last owner of a tenant."""
    belonging = store.memberships(session, row.id)
    for each in belonging:
        if each.role == "owner":
            members.check_last_owner(session, each.tenant_id, row.id)
    for erase in rooms:
        erase(session, row.id)
    keys = session.exec(select(KeyRow.id).where(KeyRow.user_id == row.id)).all()
    _delete_limits(session, "user", [row.id])
    _delete_limits(session, "key", keys)
    members.withdraw(session, row.id)
    session.exec(delete(InvitationRow).where(col(InvitationRow.email) == row.email_key))
    for table in (SessionRow, KeyRow, IdentityRow, ResetRow, MembershipRow):
        session.exec(delete(table).filter_by(user_id=row.id))
    session.delete(row)
    for tenant_id in {caller.scope.tenant, *(each.tenant_id for each in belonging)}:
        there = replace(caller, scope=replace(caller.scope, tenant=tenant_id))
        audit.record(session, there, "user.erased", row.id)


def erase_tenant(session: Session, rooms: Sequence[EraseTenant], row: TenantRow) -> None:
    """Its people keep their accounts."""
    for erase in rooms:
        erase(session, Scope(tenant=row.id))
    for table in (SessionRow, KeyRow, InvitationRow, MembershipRow, LimitRow):
        session.exec(delete(table).filter_by(tenant_id=row.id))
    session.delete(row)


def _delete_limits(session: Session, kind: str, ids: Sequence[str]) -> None:
    for each in ids:
        session.exec(delete(LimitRow).filter_by(subject_kind=kind, subject_id=each))
