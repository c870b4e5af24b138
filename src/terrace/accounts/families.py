"""Logins and their families of refresh tokens: sync functions for `Database.write`."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, update
from sqlmodel import Session, col, delete, select

from terrace.accounts import store
from terrace.accounts.base import Caller, Tenant, User
from terrace.accounts.base import Session as Login
from terrace.accounts.callers import member
from terrace.accounts.credentials import Credential, digest, new_secret, refresh_text, same
from terrace.accounts.roles import Role
from terrace.accounts.tables import SessionRow, UserRow
from terrace.errors import Denied, Unauthenticated
from terrace.types import Scope, moment, new_id

MAX_SESSIONS = 100  # a person may have; the one unused for longest ends
MAX_ADDRESS = 64
MAX_AGENT = 300


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request comes from, as its session shows it."""

    address: str = ""
    agent: str = ""

    def write_to(self, row: SessionRow) -> None:
        row.address = self.address[:MAX_ADDRESS]
        row.agent = "".join(each for each in self.agent[:MAX_AGENT] if each.isprintable())


@dataclass(frozen=True, slots=True)
class Opened:
    """A login with its next refresh token, still without an access token."""

    session_id: str
    refresh: str
    user: User
    tenant: Tenant
    role: Role


def open_login(session: Session, user: UserRow, wanted: str | None, place: Place, at: float, seconds: float) -> Opened:
    """Raises Denied."""
    caller = _enter(session, user, wanted)
    _make_room(session, user.id, at)
    secret = new_secret()
    row = SessionRow(
        id=new_id("ses"),
        tenant_id=caller.scope.tenant,
        user_id=user.id,
        refresh_hash=digest(secret),
        created_at=at,
        last_used_at=at,
        expires_at=at + seconds,
    )
    place.write_to(row)
    session.add(row)
    user.last_login_at = at
    session.add(user)
    return _opened(session, row, user, caller.role, secret)


def renew(
    session: Session, row: SessionRow, user: UserRow | None, tenant_id: str, place: Place, at: float, seconds: float
) -> Opened:
    """The next generation; the token before it is bad from now on. Raises Unauthenticated, Denied."""
    caller = member(session, user, tenant_id)
    assert user is not None
    secret = new_secret()
    row.tenant_id = tenant_id
    row.generation += 1
    row.refresh_hash = digest(secret)
    row.last_used_at, row.expires_at = at, at + seconds
    place.write_to(row)
    session.add(row)
    return _opened(session, row, user, caller.role, secret)


def found(session: Session, shown: Credential) -> tuple[SessionRow | None, bool]:
    """The session a refresh token belongs to, and whether the token is the latest of its family.

    An older generation is known by its number alone: of the tokens before only this is left. Session ids are told to
    nobody but who is logged in, so nobody else can make one up. A wrong secret of the latest is none at all.
    """
    row = session.get(SessionRow, shown.id, with_for_update=True)  # of two at once one comes second
    if row is None or shown.generation > row.generation:
        return None, False
    if shown.generation == row.generation:
        return (row, True) if same(shown.secret, row.refresh_hash) else (None, False)
    return row, False


def end(session: Session, user_id: str, at: float, *, only: str | None = None, but: str | None = None) -> None:
    """The sessions of a user, `only` one or all `but` one."""
    wanted: list[Any] = [col(SessionRow.user_id) == user_id, col(SessionRow.revoked_at).is_(None)]
    if only is not None:
        wanted.append(col(SessionRow.id) == only)
    if but is not None:
        wanted.append(col(SessionRow.id) != but)
    session.exec(update(SessionRow).where(*wanted).values(revoked_at=at))


def live(session: Session, user_id: str, at: float) -> list[SessionRow]:
    """Latest used first."""
    mine = select(SessionRow).where(
        SessionRow.user_id == user_id, col(SessionRow.revoked_at).is_(None), SessionRow.expires_at > at
    )
    return list(session.exec(mine.order_by(col(SessionRow.last_used_at).desc(), col(SessionRow.id).desc())).all())


def addresses(session: Session, email_key: str) -> set[str]:
    """Where an account was entered from, by the latest of its sessions."""
    user = select(UserRow.id).where(UserRow.email_key == email_key).scalar_subquery()
    mine = select(SessionRow.address).where(SessionRow.user_id == user)
    return set(session.exec(mine.order_by(col(SessionRow.id).desc()).limit(MAX_SESSIONS)).all())


def to_login(row: SessionRow, current: str | None) -> Login:
    return Login(
        row.id,
        moment(row.created_at),
        moment(row.last_used_at),
        moment(row.expires_at),
        row.address,
        row.agent,
        row.id == current,
    )


def themselves(user_id: str, tenant_id: str, address: str) -> Caller:
    """For the audit log, where somebody acts who could not be asked to log in."""
    return Caller(Scope(tenant_id, user_id), frozenset(), "viewer", "session", address=address)


def _opened(session: Session, row: SessionRow, user: UserRow, role: Role, secret: str) -> Opened:
    tenant = store.tenant(session, row.tenant_id)
    assert tenant is not None
    refresh = refresh_text(row.id, row.generation, secret)
    return Opened(row.id, refresh, store.to_user(user), store.to_tenant(tenant), role)


def _enter(session: Session, user: UserRow, wanted: str | None) -> Caller:
    """The tenant they ask for, else the one they worked in last, else the first that lets them in. Raises Denied."""
    if wanted is not None:
        if store.membership(session, wanted, user.id) is None:
            raise Denied("You are not a member of that tenant.", code="not_a_member")
        return member(session, user, wanted)
    last = session.exec(
        select(SessionRow.tenant_id).where(SessionRow.user_id == user.id).order_by(col(SessionRow.last_used_at).desc())
    ).first()
    homes = [each.tenant_id for each in store.memberships(session, user.id)]
    refusal = Denied("You do not belong to any tenant now. Ask for an invitation.", code="no_tenant")
    for tenant_id in sorted(homes, key=lambda each: each != last):
        try:
            return member(session, user, tenant_id)
        except Denied as error:  # disabled: another may let them in
            refusal = error
    raise refusal


def _make_room(session: Session, user_id: str, at: float) -> None:
    session.exec(delete(SessionRow).where(col(SessionRow.user_id) == user_id, col(SessionRow.expires_at) <= at))
    count = session.exec(
        select(func.count())
        .select_from(SessionRow)
        .where(SessionRow.user_id == user_id, col(SessionRow.revoked_at).is_(None))
    ).one()
    if count >= MAX_SESSIONS:
        for row in live(session, user_id, at)[MAX_SESSIONS - 1 :]:
            end(session, user_id, at, only=row.id)


def revoked() -> Unauthenticated:
    return Unauthenticated("This login was ended. Log in again.", code="session_revoked")
