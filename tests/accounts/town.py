"""What tests of people stand in: the services, a clock that is set, rooms that note what they are asked to do."""

from dataclasses import dataclass, field

from sqlmodel import Session
from tests.accounts.identity import SECRET

from terrace import settings
from terrace.accounts import registering, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller, User
from terrace.accounts.passwords import Passwords
from terrace.accounts.people import People
from terrace.accounts.registering import Newcomer
from terrace.accounts.roles import PERMISSIONS, Permission, Role, permissions
from terrace.accounts.tenants import Tenants
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope, now

PASSWORD = "plum-orbit-candle-41"
TERMINAL = Caller(Scope(), PERMISSIONS, "owner", "terminal")


@dataclass
class Clock:
    ahead: float = 0.0

    def __call__(self) -> float:
        return now() + self.ahead


@dataclass
class Town:
    database: Database
    options: settings.Accounts
    passwords: Passwords
    loopback: bool = True
    clock: Clock = field(default_factory=Clock)
    adopted: list[str] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.audit = Audit(self.database)
        self.people = People(
            self.database,
            self.options,
            SECRET,
            self.passwords,
            self.audit,
            loopback=self.loopback,
            adopt=[self._adopt],
            erase=[self._erase_user],
            changed=self._changed,
            clock=self.clock,
        )
        self.tenants = Tenants(self.database, self.audit, [self._erase_tenant], changed=self._changed)

    async def owner(self) -> Caller:
        """The first account, without the work of hashing a password."""
        return caller_of(await self._enter("Olga", first=True), "owner")

    async def person(self, name: str, role: Role = "member", tenant: str = DEFAULT_TENANT) -> Caller:
        """Somebody who came by invitation."""
        _, token = await self.people.invite(TERMINAL, role=role, tenant_id=tenant)
        return caller_of(await self._enter(name, invitation=token), role, tenant)

    async def _enter(self, name: str, *, first: bool = False, invitation: str | None = None) -> User:
        newcomer = Newcomer.of(name, f"{name.lower()}@example.org", address="", first=first, invitation=invitation)
        return await self.database.write(
            registering.register, self.audit, [self._adopt], newcomer, "$argon2id$none", self.clock()
        )

    async def tenant(self, name: str) -> str:
        return (await self.tenants.create(TERMINAL, name)).id

    async def role(self, caller: Caller) -> str | None:
        def look(session: Session) -> str | None:
            row = store.membership(session, caller.scope.tenant, caller.scope.user or "")
            return None if row is None else row.role

        return await self.database.read(look)

    def _adopt(self, session: Session, user_id: str) -> None:
        self.adopted.append(user_id)

    def _erase_user(self, session: Session, user_id: str) -> None:
        assert store.user_by_id(session, user_id) is not None, "the rooms come first: they may look them up"
        self.erased.append(user_id)

    def _erase_tenant(self, session: Session, scope: Scope) -> None:
        assert store.tenant(session, scope.tenant) is not None
        self.erased.append(scope.tenant)

    def _changed(self) -> None:
        self.changes += 1


def caller_of(user: User, role: Role, tenant: str = DEFAULT_TENANT) -> Caller:
    """Them, logged in."""
    may = permissions(role, operator=(tenant, role) == (DEFAULT_TENANT, "owner"))
    return Caller(Scope(tenant, user.id), may, role, "session", session="ses_1", address="192.0.2.7")


def key_of(caller: Caller, *scopes: Permission) -> Caller:
    """A key of theirs that may do only `scopes`."""
    scope = Scope(caller.scope.tenant, caller.scope.user, "key_1")
    return Caller(scope, caller.permissions & frozenset(scopes), caller.role, "key")
