"""Who may make an account, and what it becomes: sync functions for `Database.read` and `write`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from terrace.accounts import invitations, resets, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller, Tenant, User
from terrace.accounts.members import Adopt, join
from terrace.accounts.naming import email_address, key_of, person_name
from terrace.accounts.roles import ROLES, Role
from terrace.accounts.tables import IdentityRow, UserRow
from terrace.errors import Conflict, Denied, Missing
from terrace.types import DEFAULT_TENANT, Scope, new_id


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Whoever asks for an account, and what speaks for them."""

    name: str
    email: str
    key: str
    address: str
    invitation: str | None = None  # its token
    first: bool = False  # may make the first account: has the setup code, or needs none
    open: bool = False  # anybody may register
    operator: Caller | None = None  # who makes it for them

    @classmethod
    def of(cls, name: str, email: str, **what: object) -> "Newcomer":
        """Raises Invalid."""
        email = email_address(email)
        return cls(person_name(name), email, key_of(email), **what)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Place:
    tenant: str
    role: Role
    invitation: str | None = None  # id


def place_of(session: Session, newcomer: Newcomer, at: float, *, take: bool = False) -> Place:
    """Where they come in; `take` uses their invitation up. Raises Denied, Missing, Conflict."""
    if newcomer.invitation is not None:
        look = invitations.use if take else invitations.check
        offered = look(session, newcomer.invitation, newcomer.key, at)
        place = Place(offered.tenant_id, offered.role, offered.id)
    elif not store.any_user(session):
        if not newcomer.first:
            raise Denied(
                "This server has no account yet. Give the setup code that it printed on its terminal.",
                code="setup_code_wrong",
            )
        place = Place(DEFAULT_TENANT, "owner")
    elif newcomer.operator is not None:
        place = Place(newcomer.operator.scope.tenant, "member")
    elif newcomer.open:
        place = Place(DEFAULT_TENANT, "member")
    else:
        raise Denied("Registration is not open here. Ask for an invitation.", code="registration_closed")
    if store.user_by_email(session, newcomer.key) is not None:
        raise _taken()
    return place


def register(
    session: Session, audit: Audit, adopt: Sequence[Adopt], newcomer: Newcomer, password_hash: str | None, at: float
) -> User:
    """Raises as `place_of`, which is asked again here: what was free a moment ago may be taken."""
    place = place_of(session, newcomer, at, take=True)
    if place.tenant == DEFAULT_TENANT:
        store.default_tenant(session)
    elif store.tenant(session, place.tenant) is None:
        raise Missing("No such tenant.", code="tenant_missing")
    row = _insert(session, newcomer, password_hash, at)
    join(session, place.tenant, row.id, place.role, adopt)
    scope = Scope(tenant=place.tenant, user=row.id)
    themselves = Caller(scope, ROLES[place.role], place.role, "session", address=newcomer.address)
    detail = {"role": place.role} | ({"invitation": place.invitation} if place.invitation else {})
    audit.record(session, newcomer.operator or themselves, "user.registered", row.id, tenant=place.tenant, **detail)
    return store.to_user(row)


def register_elsewhere(
    session: Session,
    audit: Audit,
    adopt: Sequence[Adopt],
    newcomer: Newcomer,
    issuer: str,
    subject: str,
    at: float,
) -> User:
    """An account without a password, for whom an OIDC provider vouches. Raises as `register`."""
    user = register(session, audit, adopt, newcomer, None, at)
    session.add(IdentityRow(issuer=issuer, subject=subject, user_id=user.id, created_at=at))
    return user


def accept(
    session: Session, audit: Audit, adopt: Sequence[Adopt], caller: Caller, user_id: str, token: str, at: float
) -> Tenant:
    """Whoever has an account joins. Raises Missing, Denied, Conflict."""
    user = store.user_by_id(session, user_id)
    if user is None:
        raise Missing("No such user.", code="user_missing")
    offered = invitations.use(session, token, user.email_key, at)
    tenant = store.tenant(session, offered.tenant_id, lock=True)
    if tenant is None:
        raise Missing("No such tenant.", code="tenant_missing")
    if store.membership(session, tenant.id, user.id) is not None:
        raise Conflict(f"You belong to {tenant.name} already.", code="already_member")
    resets.close_all(session, user.id, at)  # a link somebody made in one tenant must not lead into another
    join(session, tenant.id, user.id, offered.role, adopt)
    detail = {"role": offered.role, "invitation": offered.id}
    there = replace(caller, scope=replace(caller.scope, tenant=tenant.id))  # the tenant they came from need not know
    audit.record(session, there, "member.joined", user.id, **detail)
    return store.to_tenant(tenant)


def _insert(session: Session, newcomer: Newcomer, password_hash: str | None, at: float) -> UserRow:
    row = UserRow(
        id=new_id("usr"),
        name=newcomer.name,
        email=newcomer.email,
        email_key=newcomer.key,
        password_hash=password_hash,
        created_at=at,
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:  # on a database with several writers, somebody was quicker
        raise _taken() from error
    return row


def _taken() -> Conflict:
    return Conflict("There is an account with this e-mail address. Log in instead.", code="email_taken")
