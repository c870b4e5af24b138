"""Rows of people and tenants, as words: sync functions for `Database.read` and `write`.

People belong to no tenant but through a membership, so these take ids and not a Scope; whoever calls says what may be
seen.
"""

from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from terrace.accounts.base import Tenant, User
from terrace.accounts.naming import email_key as email_key
from terrace.accounts.roles import RANK, Role
from terrace.accounts.tables import MembershipRow, TenantRow, UserRow
from terrace.errors import Internal, Unavailable
from terrace.types import DEFAULT_TENANT, moment, now

DEFAULT_NAME = "Default"
MAX_ID = 64


def user_by_email(session: Session, key: str) -> UserRow | None:
    """By its `email_key`."""
    return session.exec(select(UserRow).where(UserRow.email_key == key)).one_or_none()


def user_by_id(session: Session, user_id: str) -> UserRow | None:
    return session.get(UserRow, plain(user_id))


def any_user(session: Session) -> bool:
    return session.exec(select(UserRow.id).limit(1)).first() is not None


def membership(session: Session, tenant_id: str, user_id: str) -> MembershipRow | None:
    return session.get(MembershipRow, (plain(tenant_id), plain(user_id)))


def memberships(session: Session, user_id: str) -> list[MembershipRow]:
    """Oldest first."""
    mine = select(MembershipRow).where(MembershipRow.user_id == plain(user_id))
    return list(session.exec(mine.order_by(col(MembershipRow.created_at), col(MembershipRow.tenant_id))).all())


def tenant(session: Session, tenant_id: str, *, lock: bool = False) -> TenantRow | None:
    """`lock` has others that lock it wait for the end of this transaction."""
    return session.get(TenantRow, plain(tenant_id), with_for_update=lock or None)


def default_tenant(session: Session) -> TenantRow:
    """The tenant `default`; its row is made when nothing has needed one yet."""
    row = tenant(session, DEFAULT_TENANT)
    if row is None:
        row = TenantRow(id=DEFAULT_TENANT, name=DEFAULT_NAME, name_key=DEFAULT_TENANT, created_at=now())
        session.add(row)
        try:
            session.flush()
        except IntegrityError as error:  # on a database with several writers, somebody was quicker
            raise Unavailable("The server is being set up just now. Try again.", retry_after=1) from error
    return row


def owners(session: Session, tenant_id: str, *, but: str | None = None) -> int:
    """How many owners can log in, leaving out the user `but`."""
    return session.exec(
        select(func.count())
        .select_from(MembershipRow)
        .join(UserRow, col(UserRow.id) == col(MembershipRow.user_id))
        .where(
            MembershipRow.tenant_id == tenant_id,
            MembershipRow.role == "owner",
            MembershipRow.user_id != (but or ""),
            col(UserRow.disabled_at).is_(None),
        )
    ).one()


def to_user(row: UserRow) -> User:
    return User(
        row.id,
        row.name,
        row.email,
        moment(row.created_at),
        None if row.last_login_at is None else moment(row.last_login_at),
        row.password_hash is not None,
        row.disabled_at is not None,
    )


def to_tenant(row: TenantRow, members: int = 0) -> Tenant:
    return Tenant(row.id, row.name, moment(row.created_at), row.disabled_at is not None, tuple(row.models), members)


def to_role(name: str) -> Role:
    for role in RANK:
        if role == name:
            return role
    raise Internal(f"The database names a role that there is not: {name}.")


def plain(identifier: str) -> str:
    """An id from outside, fit for a query; what cannot be one becomes an id that nothing has."""
    fit = identifier.isascii() and identifier.isprintable() and len(identifier) <= MAX_ID
    return identifier if fit else ""
