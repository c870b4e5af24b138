"""Links to a new password, good once and for a while: sync functions for `Database.read` and `write`."""

from sqlalchemy import func, update
from sqlmodel import Session, col, delete, select

from terrace.accounts import families, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller
from terrace.accounts.credentials import Credential, digest, new_secret, reset_text, same
from terrace.accounts.roles import RANK
from terrace.accounts.tables import ResetRow, UserRow
from terrace.errors import Denied, Missing
from terrace.types import DEFAULT_TENANT, new_id

MAX_OPEN = 5  # links that somebody who forgot may have at a time


def by_caller(session: Session, audit: Audit, caller: Caller, user_id: str, at: float, seconds: float) -> str:
    """For somebody the caller answers for. Raises Denied, Missing."""
    user = store.user_by_id(session, user_id)
    operator = caller.via == "terminal" or "operator" in caller.permissions
    theirs = [] if user is None else store.memberships(session, user.id)
    here = next((each for each in theirs if each.tenant_id == caller.scope.tenant), None)
    if user is None or (here is None and not operator):
        raise Missing("There is no such user.", code="user_missing")
    if not operator:
        # Whoever holds the link becomes that person: never somebody above, never in a tenant of others.
        assert here is not None
        if RANK[store.to_role(here.role)] > RANK[caller.role]:
            raise Denied("You cannot make a link for someone above you.", code="above_you")
        if len(theirs) > 1:
            raise Denied("They belong to other tenants too. Ask an operator.", code="belongs_elsewhere")
    audit.record(session, caller, "user.reset_link", user.id)
    return _make(session, user, at, seconds)


def by_email(session: Session, key: str, at: float, seconds: float) -> tuple[str, str] | None:
    """(where to, the token); None for nobody, and for whoever has enough of them already."""
    user = store.user_by_email(session, key)
    if user is None or user.disabled_at is not None:
        return None
    waiting = session.exec(
        select(func.count())
        .select_from(ResetRow)
        .where(ResetRow.user_id == user.id, col(ResetRow.used_at).is_(None), ResetRow.expires_at > at)
    ).one()
    return None if waiting >= MAX_OPEN else (user.email, _make(session, user, at, seconds))


def whose(session: Session, shown: Credential, at: float, *, lock: bool = False) -> UserRow:
    """Raises Missing when the link is not good."""
    row = session.get(ResetRow, shown.id, with_for_update=lock)
    if row is None or not same(shown.secret, row.secret_hash) or row.used_at is not None or row.expires_at <= at:
        raise bad_link()
    user = store.user_by_id(session, row.user_id)
    if user is None or user.disabled_at is not None:
        raise bad_link()
    return user


def use(session: Session, audit: Audit, shown: Credential, password_hash: str, address: str, at: float) -> None:
    """The new password holds, every session ends, every other link too. Raises Missing."""
    user = whose(session, shown, at, lock=True)  # of two at once one comes second
    user.password_hash = password_hash
    session.add(user)
    families.end(session, user.id, at)
    close_all(session, user.id, at)
    homes = [each.tenant_id for each in store.memberships(session, user.id)] or [DEFAULT_TENANT]
    audit.record(session, families.themselves(user.id, homes[0], address), "password.reset", user.id)


def close_all(session: Session, user_id: str, at: float) -> None:
    session.exec(
        update(ResetRow).where(col(ResetRow.user_id) == user_id, col(ResetRow.used_at).is_(None)).values(used_at=at)
    )


def bad_link() -> Missing:
    return Missing("This link is not good any more. Ask for a new one.", code="reset_invalid")


def _make(session: Session, user: UserRow, at: float, seconds: float) -> str:
    session.exec(delete(ResetRow).where(col(ResetRow.user_id) == user.id, col(ResetRow.expires_at) <= at))
    secret = new_secret()
    row = ResetRow(
        id=new_id("rst"), user_id=user.id, secret_hash=digest(secret), created_at=at, expires_at=at + seconds
    )
    session.add(row)
    return reset_text(row.id, secret)
