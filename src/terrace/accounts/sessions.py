"""Logging in and staying logged in; and passwords, which end logins when they change."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from sqlmodel import Session

from terrace import settings
from terrace.accounts import base, families, resets, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller, Tokens
from terrace.accounts.credentials import Credential, parse_refresh, parse_reset
from terrace.accounts.families import Opened, Place
from terrace.accounts.mail import Mail
from terrace.accounts.passwords import Passwords
from terrace.accounts.secret import Secret
from terrace.accounts.tables import SessionRow, UserRow
from terrace.accounts.throttle import Throttle
from terrace.accounts.tokens import AccessTokens, csrf_token
from terrace.errors import Conflict, Denied, Invalid, Limited, Missing, TerraceError, Unauthenticated, Unavailable
from terrace.storage import Database, after_commit
from terrace.types import now

log = logging.getLogger(__name__)

DAY, HOUR = 86_400.0, 3600.0  # seconds
MAILS = 100  # under way at a time


class _Person(NamedTuple):
    id: str
    name: str
    email: str
    password_hash: str | None
    disabled: bool


class Sessions:
    """`changed` is called once something is durable that decides who may come in: `Gatekeeper.changed`."""

    def __init__(
        self,
        database: Database,
        options: settings.Accounts,
        secret: Secret,
        passwords: Passwords,
        throttle: Throttle,
        audit: Audit,
        mail: Mail,
        *,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = now,
    ) -> None:
        self._database = database
        self._settings = options
        self._secret = secret
        self._access = AccessTokens(secret, options.access_minutes, clock)
        self._passwords = passwords
        self._throttle = throttle
        self._audit = audit
        self._mail = mail
        self._changed = changed
        self._clock = clock
        self._mails: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Mails under way are given up."""
        for task in self._mails:
            task.cancel()
        await asyncio.gather(*self._mails, return_exceptions=True)

    # -- coming in and staying

    async def login(
        self, email: str, password: str, *, tenant: str | None = None, address: str = "", agent: str = ""
    ) -> Tokens:
        """Raises Unauthenticated (bad_login, whatever it is that is wrong), Limited, Denied, Unavailable."""
        try:
            key = store.email_key(email)
        except Invalid:
            key = ""  # nobody's
        async with self._throttle.attempt(key, address) as attempt:
            person = await self._database.read(_by_email, key)
            good = await self._passwords.verify(password, person.password_hash if person else None)
            if not good or person is None or person.disabled:
                await attempt.failed()
                raise Unauthenticated("The e-mail address or the password is wrong.", code="bad_login")
            await attempt.succeeded()
        newer = await self._rehashed(password, person.password_hash)
        return await self._tokens(
            await self._database.write(self._open, person.id, tenant, Place(address, agent), newer)
        )

    async def open(self, user_id: str, *, tenant: str | None = None, address: str = "", agent: str = "") -> Tokens:
        """For somebody who has shown who they are in another way. Raises Unauthenticated, Denied."""
        return await self._tokens(await self._database.write(self._open, user_id, tenant, Place(address, agent), None))

    async def refresh(self, token: str, *, address: str = "", agent: str = "") -> Tokens:
        """A refresh token is good once. Raises Unauthenticated: refresh_invalid, session_expired, session_revoked.

        A token that was used before ends its session: it was stolen, or the one that replaced it was, and nobody can
        tell which. There is no time of grace in which the last one but one still works, not even from the same address:
        a thief behind the same proxy would have it too, and the page lets its tabs refresh one after the other.
        """
        shown = parse_refresh(token)
        if shown is None:
            raise _bad_refresh()
        outcome = await self._database.write(self._refresh, shown, Place(address, agent))
        if isinstance(outcome, TerraceError):  # returned, not raised: what it wrote has to stay
            raise outcome
        return await self._tokens(outcome)

    async def switch(self, caller: Caller, tenant_id: str, *, address: str = "", agent: str = "") -> Tokens:
        """The same session, in another tenant of theirs. Raises Denied, Missing."""
        person, session_id = _logged_in(caller)
        place = Place(address or caller.address, agent)
        return await self._tokens(await self._database.write(self._switch, person, session_id, tenant_id, place))

    async def logout(self, caller: Caller | None, refresh_token: str | None = None) -> None:
        """Ends the session of either, access tokens included. What is unknown is logged out already."""
        shown = parse_refresh(refresh_token) if refresh_token else None
        session_id = caller.session if caller is not None else None
        if session_id is not None or shown is not None:
            await self._database.write(self._logout, session_id, shown)

    async def list(self, caller: Caller) -> list[base.Session]:
        """One's own, latest used first. Raises Denied."""
        person, session_id = _logged_in(caller)
        rows = await self._database.read(families.live, person, self._clock())
        return [families.to_login(row, session_id) for row in rows]

    async def revoke(self, caller: Caller, session_id: str) -> None:
        """One of one's own. Raises Denied, Missing."""
        person, _ = _logged_in(caller)
        await self._database.write(self._revoke, person, session_id)

    # -- passwords

    async def change_password(self, caller: Caller, current: str, new: str) -> None:
        """The other sessions end. Raises Denied (wrong_password), Conflict (no_password), Invalid, Limited."""
        user_id, session_id = _logged_in(caller)
        person = await self._database.read(_by_id, user_id)
        if person.password_hash is None:
            raise Conflict("You have no password yet. Have a link to a new one sent to you.", code="no_password")
        key = store.email_key(person.email)
        async with self._throttle.attempt(key, caller.address) as attempt:
            if not await self._passwords.verify(current, person.password_hash):
                await attempt.failed()
                raise Denied("That is not your password.", code="wrong_password")
            await attempt.succeeded()
        hashed = await self._passwords.hash(new, personal=(person.name, person.email))
        await self._database.write(self._change_password, caller, user_id, session_id, person.password_hash, hashed)

    async def reset_link(self, caller: Caller, user_id: str) -> str:
        """The token of a link that lets `user_id` choose a new password. Raises Denied, Missing."""
        if caller.via not in ("session", "terminal"):
            raise _login_needed()
        seconds = self._settings.reset_hours * HOUR
        return await self._database.write(resets.by_caller, self._audit, caller, user_id, self._clock(), seconds)

    async def forgot(self, email: str, base_url: str) -> None:
        """Mails a link to who has an account, later: the answer is the same, and as quick, for who has none.

        `base_url` must not be what a client says it is (its Host header), or the link leads where they like.
        Raises Invalid, Limited.
        """
        key = store.email_key(email)
        if not self._mail.enabled:
            return
        if len(self._mails) >= MAILS:
            raise Limited("Too many mails are under way. Try again in a minute.", code="mails_busy", retry_after=60)
        task = asyncio.create_task(self._send_link(key, base_url.rstrip("/")), name="reset-mail")
        self._mails.add(task)
        task.add_done_callback(self._mails.discard)

    async def reset(self, token: str, new_password: str, *, address: str = "") -> None:
        """All sessions end; the link is used up. Raises Missing (reset_invalid), Invalid, Unavailable."""
        shown = parse_reset(token)
        if shown is None:
            raise resets.bad_link()
        person = await self._database.read(lambda session: _person(resets.whose(session, shown, self._clock())))
        hashed = await self._passwords.hash(new_password, personal=(person.name, person.email))
        await self._database.write(self._reset, shown, hashed, address)

    # -- transactions

    def _open(self, session: Session, user_id: str, tenant: str | None, place: Place, newer_hash: str | None) -> Opened:
        user = store.user_by_id(session, user_id)
        if user is None or user.disabled_at is not None:
            raise Unauthenticated("This account was disabled. Ask whoever runs this server.", code="account_disabled")
        if newer_hash is not None:
            user.password_hash = newer_hash
        return families.open_login(session, user, tenant, place, self._clock(), self._life)

    def _refresh(self, session: Session, shown: Credential, place: Place) -> Opened | TerraceError:
        at = self._clock()
        row, latest = families.found(session, shown)
        if row is None:
            return _bad_refresh()
        if row.revoked_at is not None:
            return families.revoked()
        if row.expires_at <= at:
            return Unauthenticated("This login has expired. Log in again.", code="session_expired")
        if latest:
            user = store.user_by_id(session, row.user_id)
            return families.renew(session, row, user, row.tenant_id, place, at, self._life)
        families.end(session, row.user_id, at, only=row.id)
        thief = families.themselves(row.user_id, row.tenant_id, place.address)
        self._audit.record(session, thief, "session.reused", row.id)
        after_commit(session, self._changed)
        log.warning("a refresh token of %s was used twice: the session is ended", row.id)
        return families.revoked()

    def _switch(self, session: Session, user_id: str, session_id: str, tenant_id: str, place: Place) -> Opened:
        row = _row(session, user_id, session_id)
        if row is None or row.revoked_at is not None:
            raise families.revoked()
        if store.membership(session, tenant_id, user_id) is None:
            raise Missing("There is no such tenant, or you do not belong to it.", code="tenant_missing")
        kept = Place(place.address, place.agent or row.agent)
        user = store.user_by_id(session, user_id)
        return families.renew(session, row, user, tenant_id, kept, self._clock(), self._life)

    def _logout(self, session: Session, session_id: str | None, shown: Credential | None) -> None:
        rows = [None if session_id is None else session.get(SessionRow, session_id)]
        if shown is not None:
            rows.append(families.found(session, shown)[0])
        for row in rows:
            if row is not None:
                families.end(session, row.user_id, self._clock(), only=row.id)
        after_commit(session, self._changed)

    def _revoke(self, session: Session, user_id: str, session_id: str) -> None:
        row = _row(session, user_id, session_id)
        if row is None:
            raise Missing("There is no such session.", code="session_missing")
        families.end(session, user_id, self._clock(), only=row.id)
        after_commit(session, self._changed)

    def _change_password(
        self, session: Session, caller: Caller, user_id: str, session_id: str, old_hash: str, hashed: str
    ) -> None:
        user = store.user_by_id(session, user_id)
        if user is None or user.password_hash != old_hash:
            raise Conflict("Your password was changed meanwhile. Log in again.", code="password_changed")
        user.password_hash = hashed
        session.add(user)
        families.end(session, user_id, self._clock(), but=session_id)
        resets.close_all(session, user_id, self._clock())
        self._audit.record(session, caller, "password.changed", user_id)
        after_commit(session, self._changed)

    def _reset(self, session: Session, shown: Credential, hashed: str, address: str) -> None:
        resets.use(session, self._audit, shown, hashed, address, self._clock())
        after_commit(session, self._changed)

    # -- the rest

    @property
    def _life(self) -> float:
        return self._settings.refresh_days * DAY

    async def _tokens(self, opened: Opened) -> Tokens:
        await self._access.ready()
        return Tokens(
            access_token=self._access.issue(opened.user.id, opened.session_id, opened.tenant.id),
            refresh_token=opened.refresh,
            expires_in=int(self._access.seconds),
            csrf=csrf_token(self._secret, opened.session_id),
            user=opened.user,
            tenant=opened.tenant,
            role=opened.role,
        )

    async def _rehashed(self, password: str, hashed: str | None) -> str | None:
        """With today's parameters, when it was made with others; None when it may stay."""
        if hashed is None or not self._passwords.needs_rehash(hashed):
            return None
        try:
            return await self._passwords.hash(password)
        except (Invalid, Unavailable):  # the rules are stricter now, or there is no time: it is good as it was
            return None

    async def _send_link(self, key: str, base_url: str) -> None:
        try:
            link = await self._database.write(resets.by_email, key, self._clock(), self._settings.reset_hours * HOUR)
            if link is not None:
                to, token = link
                await self._mail.send(to, "A new password for Terrace", _letter(base_url, token, self._settings))
        except TerraceError as error:
            log.warning("a link to a new password could not be sent: %s", error.message)
        except Exception:
            log.exception("a link to a new password could not be sent")


def _by_email(session: Session, key: str) -> _Person | None:
    row = store.user_by_email(session, key)
    return None if row is None else _person(row)


def _by_id(session: Session, user_id: str) -> _Person:
    row = store.user_by_id(session, user_id)
    if row is None:
        raise families.revoked()
    return _person(row)


def _person(row: UserRow) -> _Person:
    return _Person(row.id, row.name, row.email, row.password_hash, row.disabled_at is not None)


def _row(session: Session, user_id: str, session_id: str) -> SessionRow | None:
    row = session.get(SessionRow, store.plain(session_id))
    return row if row is not None and row.user_id == user_id else None


def _logged_in(caller: Caller) -> tuple[str, str]:
    """(user, session): a key is not enough to look after logins and passwords. Raises Denied."""
    if caller.via != "session" or caller.scope.user is None or caller.session is None:
        raise _login_needed()
    return caller.scope.user, caller.session


def _login_needed() -> Denied:
    return Denied("This needs a login; an API key is not enough.", code="login_needed")


def _bad_refresh() -> Unauthenticated:
    return Unauthenticated("This refresh token is not one of ours. Log in again.", code="refresh_invalid")


def _letter(base_url: str, token: str, options: settings.Accounts) -> str:
    return (
        "Somebody, probably you, asked for a new password.\n\n"
        f"Choose it here: {base_url}/reset#{token}\n\n"
        f"The link is good once, for {options.reset_hours:g} hours. If you did not ask for it, there is nothing to do."
        "\n"
    )
