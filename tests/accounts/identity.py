"""People and tenants put straight into the database, for tests of what lets them in."""

from sqlmodel import Session

from terrace.accounts import store
from terrace.accounts.base import Caller
from terrace.accounts.callers import member
from terrace.accounts.roles import PERMISSIONS, Role
from terrace.accounts.secret import Secret
from terrace.accounts.tables import MembershipRow, TenantRow, UserRow
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope, new_id, now

SECRET = Secret("n0tGuessable-by-anybody-at-all-7Qz")


class Clock:
    """Runs with the wall's, and can be moved."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return now() + self.ahead


async def add_tenant(database: Database, tenant_id: str, *models: str) -> str:
    def add(session: Session) -> None:
        if tenant_id == DEFAULT_TENANT:
            store.default_tenant(session)
        else:
            session.add(
                TenantRow(id=tenant_id, name=tenant_id, name_key=tenant_id, models=list(models), created_at=now())
            )

    await database.write(add)
    return tenant_id


async def add_user(
    database: Database,
    email: str,
    *,
    tenant: str | None = DEFAULT_TENANT,
    role: Role = "owner",
    password_hash: str | None = None,
) -> str:
    user_id = new_id("usr")

    def add(session: Session) -> None:
        session.add(
            UserRow(
                id=user_id,
                name=email.split("@")[0],
                email=email,
                email_key=store.email_key(email),
                password_hash=password_hash,
                created_at=now(),
            )
        )
        session.flush()
        if tenant == DEFAULT_TENANT:
            store.default_tenant(session)
        if tenant is not None:
            session.add(MembershipRow(tenant_id=tenant, user_id=user_id, role=role, created_at=now()))

    await database.write(add)
    return user_id


async def join(database: Database, user_id: str, tenant: str, role: Role) -> None:
    row = MembershipRow(tenant_id=tenant, user_id=user_id, role=role, created_at=now())
    await database.write(lambda session: session.add(row))


async def caller_of(database: Database, user_id: str, tenant: str = DEFAULT_TENANT) -> Caller:
    """As one who has logged in."""
    return await database.read(lambda session: member(session, store.user_by_id(session, user_id), tenant))


def terminal(tenant: str = DEFAULT_TENANT) -> Caller:
    return Caller(Scope(tenant), PERMISSIONS, "owner", "terminal")
