"""Who a request comes from. The quickest path of the product: one hash and one look into a dict for who is known."""

import asyncio
import hmac
import logging
import math
import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple, TypeVar

from terrace import settings
from terrace.accounts import callers
from terrace.accounts.base import LOCAL, Caller
from terrace.accounts.credentials import parse_key
from terrace.accounts.keys import mark_used
from terrace.accounts.secret import Secret
from terrace.accounts.store import any_user
from terrace.accounts.tokens import AccessTokens, csrf_token
from terrace.errors import Denied, Unauthenticated, Unavailable
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, now

log = logging.getLogger(__name__)

KNOWN = 8192  # credentials remembered, by address; the oldest go first
REFUSED = 1024  # bad ones
REFUSED_SECONDS = 3.0
SHARED_SECONDS = 3.0  # how long what was read is believed when another process may have written
ALONE_SECONDS = 60.0  # and when surely none has
WATCH_BEGINS = 1.0  # seconds until the database's watch surely looks
USED_SECONDS = 30.0  # between two writes of when keys were used
TERMINAL = b"trt_"
COOKIE = b"terrace_access"
_FROM_COOKIE = b"\0"  # no header can hold it: what came as a cookie never passes for what did not


def terminal_secret() -> str:
    """What a command of whoever owns the data folder says who it is with."""
    return TERMINAL.decode() + secrets.token_urlsafe(32)


class _Known(NamedTuple):
    caller: Caller
    checked: float  # when it was read


class _Refusal(NamedTuple):
    kind: type[Unauthenticated] | type[Denied]
    message: str
    code: str
    until: float


T = TypeVar("T")
_Key = tuple[bytes, str]  # SHA-256 of the credential, and the address it came from


class Gatekeeper:
    """Implements `web.access.Gatekeeper`.

    What was read is dropped by `changed`, which whoever changes accounts calls once that is committed. What other
    processes change is known after SHARED_SECONDS: on SQLite `Database.watch` tells when one has written, and until
    then what was read is believed for longer.

    `loopback`: only this machine can connect (or whoever runs the server wants nobody asked). `terminal_token` is a
    `terminal_secret`, made up when None.
    """

    def __init__(
        self,
        database: Database,
        options: settings.Accounts,
        secret: Secret,
        *,
        loopback: bool,
        terminal_token: str | None = None,
        clock: Callable[[], float] = now,
    ) -> None:
        self.terminal_token = terminal_token or terminal_secret()
        self._terminal = self.terminal_token.encode()
        self._database = database
        self._tokens = AccessTokens(secret, options.access_minutes, clock)
        self._secret = secret
        self._clock = clock
        self._local = loopback and not options.required  # once it ends it has ended for good
        self._local_checked = 0.0
        # Word of what others write may be held up on its way through a network, but not in a file.
        self._believed = ALONE_SECONDS if database.dialect == "sqlite" else SHARED_SECONDS
        self._known: dict[_Key, _Known] = {}
        self._refused: dict[_Key, _Refusal] = {}
        self._looks: dict[tuple[_Key, int], tuple[asyncio.Future[Caller], float]] = {}  # under way, by epoch
        self._epoch = 0  # goes up with each change, so that what was read before is not kept after
        self._changed_at = 0.0
        self._stirred = math.inf  # when another process last wrote; before `start` one may at any time
        self._used: dict[str, float] = {}  # keys, and when they were used last
        self._writing: asyncio.Task[None] | None = None
        self._unwatch: Callable[[], None] | None = None

    @property
    def local(self) -> bool:
        """Nobody has an account yet and only this machine can ask: everybody is let in."""
        return self._local

    async def start(self) -> None:
        self._unwatch = self._database.watch(self._stir)
        self._stirred = self._clock() + WATCH_BEGINS
        await self._still_local()
        self._writing = asyncio.create_task(self._write_used(), name="keys-used")

    async def close(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None
        await self.flush()

    def changed(self) -> None:
        """Users, roles, keys, sessions or tenants are not what they were: all is read again."""
        self._epoch += 1
        self._changed_at = self._clock()
        self._known.clear()
        self._refused.clear()
        self._local_checked = 0.0

    def csrf(self, session: str) -> str:
        """What a page logged in by cookie must send as X-CSRF-Token."""
        return csrf_token(self._secret, session)

    # -- at the door

    def known(self, headers: dict[bytes, bytes], address: str) -> Caller | None:
        """From what is known now, without I/O; None when `authenticate` has to look. Raises Unauthenticated, Denied."""
        credential = _credential(headers)
        at = self._clock()
        if self._local:
            if not self._fresh(self._local_checked, at) or (credential and credential.startswith(TERMINAL)):
                return None
            return LOCAL  # SDKs insist on sending some key; nobody has any yet
        if credential is None:
            raise _nobody()
        key = (sha256(credential).digest(), address)
        found = self._known.get(key)
        if found is None:
            self._turn_away(key, at)
            return None
        caller, checked = found
        if at >= caller.expires or not self._fresh(checked, at):
            return None
        if caller.scope.key is not None:
            self._used[caller.scope.key] = at
        return caller

    async def authenticate(self, headers: dict[bytes, bytes], address: str) -> Caller:
        """Raises Unauthenticated or Denied; Missing when a command names a tenant that there is not."""
        credential = _credential(headers)
        if credential is not None and hmac.compare_digest(credential, self._terminal):
            tenant = headers.get(b"terrace-tenant", b"").decode("latin-1") or DEFAULT_TENANT
            return await self._database.read(callers.at_terminal, tenant, address)
        if await self._still_local():
            return LOCAL
        if credential is None:
            raise _nobody()
        key = (sha256(credential).digest(), address)
        at, epoch = self._clock(), self._epoch
        self._turn_away(key, at)
        try:
            look, at = self._looking(key, credential, address, at)
            caller = await asyncio.shield(look)
        except (Unauthenticated, Denied) as error:
            if epoch == self._epoch:
                refusal = _Refusal(type(error), error.message, error.code, at + REFUSED_SECONDS)
                _remember(self._refused, key, refusal, REFUSED)
            raise
        if epoch == self._epoch:
            _remember(self._known, key, _Known(caller, at), KNOWN)
        if caller.scope.key is not None:
            self._used[caller.scope.key] = at
        return caller

    async def still(self, caller: Caller, checked: float) -> float:
        """When it was true last that `caller` may do what they may: `checked`, if nothing can have changed since, or
        now. For what goes on after a request was let in. Raises Unauthenticated, Denied."""
        at = self._clock()
        if caller.via == "terminal" or (checked > self._changed_at and self._fresh(checked, at)):
            return checked
        if caller.via == "local":
            if not await self._still_local():
                raise _nobody()
        else:
            found = await self._database.read(callers.now_of, caller, at)
            if (found.scope, found.permissions) != (caller.scope, caller.permissions):
                raise Denied("What you may do here has changed. Ask again.", code="changed")
        return at

    def _looking(self, key: _Key, credential: bytes, address: str, at: float) -> tuple[asyncio.Future[Caller], float]:
        """Those who ask for the same at once share one look, and when it began: when what is known of a busy key grows
        old, hundreds ask."""
        asked = (key, self._epoch)
        if asked not in self._looks:
            look = asyncio.ensure_future(self._look(credential, address, at))
            look.add_done_callback(lambda _: self._looks.pop(asked))
            self._looks[asked] = look, at
        return self._looks[asked]

    async def _look(self, credential: bytes, address: str, at: float) -> Caller:
        cookie = credential.startswith(_FROM_COOKIE)
        text = credential.removeprefix(_FROM_COOKIE).decode("latin-1")
        if text.startswith("trc_"):
            parsed = parse_key(text)
            if parsed is None or cookie:
                raise callers.bad_key()
            return await self._database.read(callers.of_key, parsed, address, at)
        await self._tokens.ready()
        claims = self._tokens.verify(text)
        return await self._database.read(callers.of_login, claims, address, at, cookie=cookie)

    def _turn_away(self, key: _Key, at: float) -> None:
        """Raises what it was refused with a moment ago."""
        refusal = self._refused.get(key)
        if refusal is not None and at < refusal.until:
            raise refusal.kind(refusal.message, code=refusal.code)

    # -- what other processes do

    def _fresh(self, checked: float, at: float) -> bool:
        return at - checked < (self._believed if checked > self._stirred else SHARED_SECONDS)

    def _stir(self) -> None:
        self._stirred = self._clock()

    async def _still_local(self) -> bool:
        while self._local and not self._fresh(self._local_checked, self._clock()):
            at, epoch = self._clock(), self._epoch
            if await self._database.read(any_user):
                if self._local:
                    log.info("an account exists: from now on every request has to say who it is")
                self._local = False
            elif epoch == self._epoch:  # else the first account may have come just after what was read
                self._local_checked = at
        return self._local

    # -- when keys were used

    async def flush(self) -> None:
        """Write when keys were used last."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._database.write(mark_used, used)
        except Unavailable as error:  # tried again with the next ones
            log.warning("when keys were used could not be written: %s", error.message)
            self._used = used | self._used

    async def _write_used(self) -> None:
        while True:
            await asyncio.sleep(USED_SECONDS)
            try:
                await self.flush()
            except Exception:  # a mistake of ours must not stop the later ones
                log.exception("when keys were used could not be written")


def _credential(headers: dict[bytes, bytes]) -> bytes | None:
    """What they say who they are with. An `Authorization` of another scheme is none of ours."""
    given = headers.get(b"authorization")
    if given is not None and given[:7].lower() == b"bearer ":
        given = given[7:].strip()
    else:
        given = headers.get(b"x-api-key") or headers.get(b"x-access-token") or _cookie(headers.get(b"cookie"))
    return given or None


def _cookie(header: bytes | None) -> bytes | None:
    if header is None:
        return None
    for pair in header.split(b";"):
        name, _, value = pair.partition(b"=")
        if name.strip() == COOKIE:
            value = value.strip()
            return _FROM_COOKIE + value if value else None
    return None


def _remember(where: dict[_Key, T], key: _Key, what: T, most: int) -> None:
    where.pop(key, None)
    if len(where) >= most:
        del where[next(iter(where))]
    where[key] = what


def _nobody() -> Unauthenticated:
    return Unauthenticated(
        "Say who you are: log in, or send an API key as `Authorization: Bearer trc_...`.", code="unauthenticated"
    )
