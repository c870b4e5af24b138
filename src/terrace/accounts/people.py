"""People: how they come in, what they are in a tenant, and how they go."""

import hmac
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Concatenate, Literal, ParamSpec, TypeVar

from sqlmodel import Session

from terrace import settings
from terrace.accounts import erasing, invitations, members, profiles, registering, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller, Invitation, Member, Tenant, User
from terrace.accounts.erasing import EraseUser
from terrace.accounts.guesses import Guess, Guesses, Rule, too_many
from terrace.accounts.members import Adopt
from terrace.accounts.naming import person_name
from terrace.accounts.paging import check_limit
from terrace.accounts.passwords import Passwords
from terrace.accounts.registering import Newcomer
from terrace.accounts.roles import Role
from terrace.accounts.secret import Secret
from terrace.accounts.throttle import network_of
from terrace.errors import Conflict, Denied, Missing, Unauthenticated
from terrace.storage import Database, after_commit
from terrace.types import Scope, now

P = ParamSpec("P")
R = TypeVar("R")

DAY = 86_400.0
CODE_CHARS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # that nobody takes for one another
CODE_ATTEMPTS = 10  # wrong setup codes an address gets in 15 minutes


class People:
    """`adopt` and `erase` are the rooms' own: what becomes the first owner's, what goes with a user. `changed` is
    called once something is durable that decides what a caller may do."""

    def __init__(
        self,
        database: Database,
        options: settings.Accounts,
        secret: Secret,
        passwords: Passwords,
        audit: Audit,
        *,
        loopback: bool,
        adopt: Sequence[Adopt] = (),
        erase: Sequence[EraseUser] = (),
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = now,
    ) -> None:
        self._database = database
        self._options = options
        self._secret = secret
        self._passwords = passwords
        self._audit = audit
        self._loopback = loopback
        self._adopt = adopt
        self._erase = erase
        self._changed = changed
        self._clock = clock
        self._codes = Rule("setup code", CODE_ATTEMPTS)
        self._refusals = Rule("registration", options.address_attempts)
        self._guesses = Guesses(database, clock=clock)

    @cached_property
    def setup_code(self) -> str:
        """Shows that whoever makes the first account from elsewhere can read the terminal of any of the processes."""
        number = int.from_bytes(self._secret.key("setup code"))
        return "".join(CODE_CHARS[number // len(CODE_CHARS) ** place % len(CODE_CHARS)] for place in range(8))

    @property
    def registration(self) -> Literal["open", "invite", "closed"]:
        """Who may register, the first account aside."""
        if self._options.registration == "auto":
            return "open" if self._loopback else "invite"
        return self._options.registration

    async def exists(self) -> bool:
        """Whether there is any account."""
        return await self._database.read(store.any_user)

    # -- coming in

    async def register(
        self,
        name: str,
        email: str,
        password: str,
        *,
        invitation: str | None = None,
        setup_code: str | None = None,
        caller: Caller | None = None,
        near: bool = False,
        address: str = "",
    ) -> User:
        """`near`: the client sits at this machine and needs no setup code. A caller who is an operator makes an account
        for somebody else, in the tenant they work in.

        Raises Invalid, Denied (registration_closed, setup_code_wrong), Missing (the invitation), Conflict
        (email_taken), Limited, Unavailable.
        """
        terminal = caller is not None and caller.via == "terminal"
        newcomer = Newcomer.of(
            name,
            email,
            address=address,
            invitation=invitation,
            first=await self._check_code(setup_code, address) or near or terminal,
            open=self.registration == "open",
            operator=caller if caller and "operator" in caller.permissions and caller.via != "local" else None,
        )
        return await self._enter(newcomer, password)

    async def sign_up(self, name: str, email: str, *, issuer: str, subject: str, address: str = "") -> User:
        """An account for somebody whom an OIDC provider vouches for: a member of the tenant `default`, without a
        password. Never the first account. Raises as `register`."""
        newcomer = Newcomer.of(name, email, address=address, open=True)
        return await self._change(
            registering.register_elsewhere, self._audit, self._adopt, newcomer, issuer, subject, self._clock()
        )

    async def look(self, token: str) -> Invitation:
        """What an invitation offers. Raises Missing when it is not good."""
        return await self._database.read(invitations.look, token, self._clock())

    async def accept(self, caller: Caller, token: str) -> Tenant:
        """Whoever has an account joins. Raises Unauthenticated, Denied, Missing, Conflict."""
        if caller.scope.user is None:
            raise Unauthenticated("Log in, or register with this invitation, to accept it.")
        profiles.check_person(caller)
        return await self._change(
            registering.accept, self._audit, self._adopt, caller, caller.scope.user, token, self._clock()
        )

    # -- a person

    async def get(self, caller: Caller, user_id: str) -> User:
        """Oneself; a member of one's tenant, for those who manage members; anybody, for operators. Raises Missing."""
        return await self._database.read(lambda session: store.to_user(profiles.seen(session, caller, user_id)))

    async def tenants_of(self, user_id: str) -> list[tuple[Tenant, Role]]:
        """By name."""
        return await self._database.read(members.tenants_of, user_id)

    async def rename(self, caller: Caller, user_id: str, name: str) -> User:
        """Oneself, or anybody for operators. Raises Invalid, Missing, Denied."""
        return await self._change(profiles.rename, self._audit, caller, user_id, person_name(name))

    async def disable(self, caller: Caller, user_id: str, disabled: bool) -> User:
        """Logs them out everywhere and keeps them out, until enabled again. For operators. Raises Denied, Missing,
        Conflict."""
        return await self._change(profiles.disable, self._audit, caller, user_id, disabled, self._clock())

    async def erase(self, caller: Caller, user_id: str) -> None:
        """With all that is theirs in every room. Oneself, or anybody for operators.

        Raises Missing, Denied, Conflict (the last owner of a tenant)."""

        def erase(session: Session) -> None:
            row = profiles.own(session, caller, user_id)
            erasing.erase_user(session, self._audit, self._erase, caller, row)

        await self._change(erase)

    # -- members of the caller's tenant

    async def members(
        self, scope: Scope, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Member], str | None]:
        """With the cursor of what follows. Raises Invalid."""
        check_limit(limit)
        found = await self._database.read(members.page, scope, limit, cursor)
        return found[:limit], found[limit - 1].user.id if len(found) > limit else None

    async def set_role(self, caller: Caller, user_id: str, role: Role) -> Member:
        """Raises Invalid, Missing, Denied, Conflict."""
        return await self._change(members.set_role, self._audit, caller, user_id, role)

    async def remove_member(self, caller: Caller, user_id: str) -> None:
        """They keep their account. Raises Missing, Denied, Conflict."""
        await self._change(members.remove, self._audit, caller, user_id)

    async def invite(
        self, caller: Caller, *, email: str | None = None, role: Role = "member", tenant_id: str | None = None
    ) -> tuple[Invitation, str]:
        """The invitation and its token, which is shown this once. Another tenant's: for operators.
        Raises Invalid, Denied, Missing, Conflict."""
        key = store.email_key(email) if email is not None else None
        tenant_id = caller.scope.tenant if tenant_id is None else tenant_id
        seconds = self._options.invitation_days * DAY
        return await self._database.write(
            invitations.invite, self._audit, caller, key, role, tenant_id, self._clock(), seconds
        )

    async def invitations(self, scope: Scope) -> list[Invitation]:
        """Those still open, newest first."""
        return await self._database.read(invitations.open_of, scope, self._clock())

    async def revoke_invitation(self, caller: Caller, invitation_id: str) -> None:
        """Raises Missing, Denied."""
        await self._database.write(invitations.revoke, self._audit, caller, invitation_id, self._clock())

    # -- how it is done

    async def _change(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A write after which a caller may be another."""

        def changing(session: Session) -> R:
            result = work(session, *args, **kwargs)
            after_commit(session, self._changed)
            return result

        return await self._database.write(changing)

    async def _enter(self, newcomer: Newcomer, password: str) -> User:
        """Who is refused costs no hashing, and may not try for ever."""
        guess = Guess(self._refusals, network_of(newcomer.address))
        if newcomer.operator is None and (wait := await self._guesses.wait(guess)):
            raise too_many("registrations", wait)
        try:
            await self._database.read(registering.place_of, newcomer, self._clock())
            hash = await self._passwords.hash(password, personal=(newcomer.name, newcomer.email))
            return await self._change(registering.register, self._audit, self._adopt, newcomer, hash, self._clock())
        except (Denied, Missing, Conflict) as refusal:
            if newcomer.operator is None and (wait := await self._guesses.failed(guess)):
                raise too_many("registrations", wait) from refusal
            raise

    async def _check_code(self, given: str | None, address: str) -> bool:
        """Raises Limited for whoever guesses."""
        if not given:
            return False
        tidy = given.replace("-", "").strip().upper().encode(errors="replace")
        right = hmac.compare_digest(tidy, self.setup_code.encode())
        guess = Guess(self._codes, network_of(address))
        if wait := await (self._guesses.wait(guess) if right else self._guesses.failed(guess)):
            raise too_many("setup codes", wait)
        return right
