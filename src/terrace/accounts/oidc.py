"""Logging in by other providers (OpenID Connect)."""

import base64
import hmac
import secrets
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import update
from sqlmodel import Session, col

from terrace import settings
from terrace.accounts import families, resets, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Tokens
from terrace.accounts.naming import MAX_NAME, email_address, key_of
from terrace.accounts.oidc_provider import Person, Provider
from terrace.accounts.people import People
from terrace.accounts.secret import Secret
from terrace.accounts.sessions import Sessions
from terrace.accounts.tables import IdentityRow, KeyRow, UserRow
from terrace.errors import Denied, Missing, Unauthenticated
from terrace.storage import Database, after_commit
from terrace.types import DEFAULT_TENANT, now

PATIENCE = 600  # seconds somebody has to log in at the provider
MAX_QUERY = 4096  # characters of a code or state


class OIDCLogin:
    """Nothing is remembered between `start` and `finish` but what the browser keeps in a cookie: a random seed with our
    signature. State, nonce and PKCE verifier follow from it by a key that only we have, so the cookie tells none.

    `changed` is called once something is durable that decides who may come in: `Gatekeeper.changed`.
    """

    def __init__(
        self,
        options: Mapping[str, settings.OIDC],
        database: Database,
        people: People,
        sessions: Sessions,
        secret: Secret,
        audit: Audit,
        *,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = now,
    ) -> None:
        self._options = dict(options)
        self._providers = {name: Provider(each, clock) for name, each in options.items()}
        self._database = database
        self._people = people
        self._sessions = sessions
        self._secret = secret
        self._audit = audit
        self._changed = changed
        self._clock = clock

    def names(self) -> list[tuple[str, str]]:
        """Of the providers: (name, what the button says)."""
        return [(name, each.label or name) for name, each in self._options.items()]

    async def start(self, name: str, redirect_uri: str) -> tuple[str, str]:
        """(where the browser goes, the cookie it keeps for PATIENCE seconds). Raises Missing, Unavailable."""
        provider = await self._provider(name)
        attempt = _Attempt(name, redirect_uri, int(self._clock()) + PATIENCE, secrets.token_urlsafe(32))
        key = self._secret.key("oidc")
        url = await provider.authorization_url(
            redirect_uri, attempt.derived(key, "state"), attempt.derived(key, "nonce"), attempt.derived(key, "verifier")
        )
        return url, f"{attempt.until}.{attempt.seed}.{attempt.derived(key, 'cookie')}"

    async def finish(
        self,
        name: str,
        query: Mapping[str, str],
        cookie: str | None,
        redirect_uri: str,
        *,
        address: str = "",
        agent: str = "",
    ) -> Tokens:
        """What the provider sent the browser back with, and the cookie of `start`.

        Raises Missing, Unavailable, Unauthenticated (oidc_state, oidc_cancelled, oidc_refused), Denied
        (oidc_unverified, oidc_domain, oidc_unknown).
        """
        provider = await self._provider(name)
        key = self._secret.key("oidc")
        attempt = self._attempt(key, name, redirect_uri, cookie or "")
        if not hmac.compare_digest(query.get("state", "").encode(), attempt.derived(key, "state").encode()):
            raise _bad_state()
        if "error" in query:
            raise Unauthenticated("The login provider did not let you in.", code="oidc_cancelled")
        if "iss" in query and query["iss"] != await provider.issuer():  # RFC 9207: another provider's answer
            raise _bad_state()
        code = query.get("code", "")
        if not 0 < len(code) <= MAX_QUERY:
            raise _bad_state()
        person = await provider.person(
            code, redirect_uri, attempt.derived(key, "nonce"), attempt.derived(key, "verifier")
        )
        user_id = await self._user(self._options[name], person, address)
        return await self._sessions.open(user_id, address=address, agent=agent)

    def _attempt(self, key: bytes, name: str, redirect_uri: str, cookie: str) -> "_Attempt":
        """What the cookie stands for. Raises Unauthenticated."""
        until, _, rest = cookie[:MAX_QUERY].partition(".")
        seed, _, signature = rest.partition(".")
        if not (until.isascii() and until.isdecimal() and len(until) < 16):
            raise _bad_state()
        attempt = _Attempt(name, redirect_uri, int(until), seed)
        if not hmac.compare_digest(signature.encode(), attempt.derived(key, "cookie").encode()):
            raise _bad_state()
        if attempt.until <= self._clock():
            raise _bad_state()
        return attempt

    async def _user(self, options: settings.OIDC, person: Person, address: str) -> str:
        """Whose account it is; one is made when that is the rule. Raises Denied, Invalid."""
        email = email_address(person.email).lower() if person.verified else None
        if options.domains and (
            email is None or email.rpartition("@")[2] not in {each.lower() for each in options.domains}
        ):
            raise Denied("Your e-mail address is not of a domain that may log in here.", code="oidc_domain")
        known = await self._database.write(self._known, person, email, address)
        if known is not None:
            return known
        if email is None:
            raise Denied(
                "The login provider has not verified your e-mail address. Have it verified there first.",
                code="oidc_unverified",
            )
        if not options.sign_up:
            raise Denied("You have no account here. Ask for an invitation.", code="oidc_unknown")
        user = await self._people.sign_up(
            _name(person), person.email, issuer=person.issuer, subject=person.subject, address=address
        )
        return user.id

    def _known(self, session: Session, person: Person, email: str | None, address: str) -> str | None:
        """Two addresses that no two accounts may have, because they read alike (strasse@ and straße@), can be two
        people's: only the very same one joins an account."""
        identity = session.get(IdentityRow, (person.issuer, person.subject))
        if identity is not None:
            return identity.user_id
        user = None if email is None else store.user_by_email(session, key_of(email))
        if user is None or email_address(user.email).lower() != email:
            return None
        self._link(session, person, user, address)
        return user.id

    def _link(self, session: Session, person: Person, user: UserRow, address: str) -> None:
        """Where anybody may register, nobody has checked that the account's address is its maker's; the provider says
        whose it is. So that whoever took it beforehand does not stay in, their ways in are closed."""
        at = self._clock()
        session.add(IdentityRow(issuer=person.issuer, subject=person.subject, user_id=user.id, created_at=at))
        if self._people.registration == "open":
            user.password_hash = None
            session.add(user)
            families.end(session, user.id, at)
            resets.close_all(session, user.id, at)
            session.exec(
                update(KeyRow)
                .where(col(KeyRow.user_id) == user.id, col(KeyRow.revoked_at).is_(None))
                .values(revoked_at=at)
            )
        homes = [each.tenant_id for each in store.memberships(session, user.id)] or [DEFAULT_TENANT]
        caller = families.themselves(user.id, homes[0], address)
        self._audit.record(session, caller, "identity.linked", user.id, issuer=person.issuer)
        after_commit(session, self._changed)

    async def _provider(self, name: str) -> Provider:
        if name not in self._providers:
            raise Missing("There is no such login provider.", code="oidc_missing")
        await self._providers[name].ready()
        return self._providers[name]


class _Attempt(NamedTuple):
    name: str
    redirect_uri: str
    until: int  # seconds since 1970
    seed: str

    def derived(self, key: bytes, purpose: str) -> str:
        """43 characters that nobody without the key can tell from random ones."""
        text = "\n".join((purpose, self.name, self.redirect_uri, str(self.until), self.seed))
        return base64.urlsafe_b64encode(hmac.new(key, text.encode(), sha256).digest()).decode().rstrip("=")


def _name(person: Person) -> str:
    """What the provider calls them, made fit for us."""
    plain = " ".join("".join(each if each.isprintable() else " " for each in person.name).split())
    return plain[:MAX_NAME].strip() or person.email.partition("@")[0]


def _bad_state() -> Unauthenticated:
    return Unauthenticated("This login was not begun here, or took too long. Begin again.", code="oidc_state")
