"""The accounts room, built: who may come in, who they are, and what is written down about it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from terrace.accounts.audit import Audit
from terrace.accounts.erasing import EraseTenant, EraseUser
from terrace.accounts.gatekeeper import Gatekeeper
from terrace.accounts.keys import Keys
from terrace.accounts.mail import Mail
from terrace.accounts.members import Adopt
from terrace.accounts.oidc import OIDCLogin
from terrace.accounts.passwords import Passwords
from terrace.accounts.people import People
from terrace.accounts.secret import load_secret
from terrace.accounts.sessions import Sessions
from terrace.accounts.tenants import Tenants
from terrace.accounts.throttle import Throttle
from terrace.settings import Settings
from terrace.storage import Database


@dataclass(frozen=True, slots=True)
class Accounts:
    gatekeeper: Gatekeeper
    audit: Audit
    people: People
    tenants: Tenants
    mail: Mail
    sessions: Sessions
    oidc: OIDCLogin
    keys: Keys


@asynccontextmanager
async def open_accounts(
    settings: Settings,
    database: Database,
    *,
    loopback: bool,
    terminal_token: str | None = None,
    adopt: Sequence[Adopt] = (),
    erase_user: Sequence[EraseUser] = (),
    erase_tenant: Sequence[EraseTenant] = (),
    tenants_changed: Callable[[], None] = lambda: None,
) -> AsyncIterator[Accounts]:
    """The other rooms say by functions what becomes of what they keep when a first account is made, when a person is
    erased and when a tenant is deleted. `loopback`: only this machine can connect. `tenants_changed` is called when one
    was disabled or let in again. Raises Invalid for a bad secret."""
    options = settings.accounts
    secret = load_secret(options, settings.data)
    gatekeeper = Gatekeeper(
        database, options, secret, loopback=loopback or settings.insecure, terminal_token=terminal_token
    )
    changed = gatekeeper.changed

    def also_changed() -> None:
        changed()
        tenants_changed()

    audit = Audit(database)
    passwords = Passwords(options)
    people = People(
        database, options, secret, passwords, audit, loopback=loopback, adopt=adopt, erase=erase_user, changed=changed
    )
    tenants = Tenants(database, audit, erase_tenant, changed=also_changed)
    mail = Mail(options.smtp)
    throttle = Throttle(database, options)
    sessions = Sessions(database, options, secret, passwords, throttle, audit, mail, changed=changed)
    oidc = OIDCLogin(options.oidc, database, people, sessions, secret, audit, changed=changed)
    keys = Keys(database, options, audit, changed=changed)
    try:
        yield Accounts(gatekeeper, audit, people, tenants, mail, sessions, oidc, keys)
    finally:
        await sessions.close()
        passwords.close()
