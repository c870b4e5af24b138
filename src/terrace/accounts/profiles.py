"""One person's account: who sees it and who changes it. Sync functions for `Database.read` and `write`."""

from sqlalchemy import update
from sqlmodel import Session

from terrace.accounts import members, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller, User
from terrace.accounts.tables import SessionRow, UserRow
from terrace.errors import Denied, Missing
from terrace.types import DEFAULT_TENANT


def seen(session: Session, caller: Caller, user_id: str) -> UserRow:
    """Oneself; a member of one's tenant, for those who manage members; anybody, for operators. Raises Missing."""
    row = store.user_by_id(session, user_id)
    if row is not None:
        if row.id == caller.scope.user or "operator" in caller.permissions:
            return row
        if "members" in caller.permissions and store.membership(session, caller.scope.tenant, row.id) is not None:
            return row
    raise Missing("No such user.", code="user_missing")


def own(session: Session, caller: Caller, user_id: str) -> UserRow:
    """For what only the person does, or an operator. Raises Missing, Denied."""
    row = seen(session, caller, user_id)
    if "operator" not in caller.permissions:
        if row.id != caller.scope.user:
            raise Denied("Only they themselves or an operator may do that.", code="not_permitted")
        check_person(caller)
    return row


def check_person(caller: Caller) -> None:
    """That no key speaks for them: one that leaks must not cost them their account. Raises Denied."""
    if caller.via == "key":
        raise Denied("A key may not do that: log in.", code="login_needed")


def rename(session: Session, audit: Audit, caller: Caller, user_id: str, name: str) -> User:
    row = own(session, caller, user_id)
    row.name = name
    session.add(row)
    audit.record(session, caller, "user.renamed", row.id)
    return store.to_user(row)


def disable(session: Session, audit: Audit, caller: Caller, user_id: str, disabled: bool, at: float) -> User:
    """Raises Denied, Missing, Conflict."""
    if "operator" not in caller.permissions:
        raise Denied("Only an operator disables an account.", code="not_permitted")
    row = seen(session, caller, user_id)
    if disabled == (row.disabled_at is not None):
        return store.to_user(row)
    if disabled:
        _check_operators(session, row.id)
        members.withdraw(session, row.id)
        session.exec(update(SessionRow).filter_by(user_id=row.id, revoked_at=None).values(revoked_at=at))
    row.disabled_at = at if disabled else None
    session.add(row)
    audit.record(session, caller, "user.disabled" if disabled else "user.enabled", row.id)
    return store.to_user(row)


def _check_operators(session: Session, user_id: str) -> None:
    """Somebody must be left to run the installation."""
    member = store.membership(session, DEFAULT_TENANT, user_id)
    if member is not None and member.role == "owner":
        members.check_last_owner(session, DEFAULT_TENANT, user_id)
