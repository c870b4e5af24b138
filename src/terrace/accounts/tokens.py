"""Access tokens: short-lived JWTs (RFC 7519) that name a login. What it may do is looked up, never written inside."""

import asyncio
import hmac
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib import import_module
from typing import Any

from terrace.accounts.secret import Secret
from terrace.errors import Unauthenticated
from terrace.types import new_id, now

ALGORITHM = "HS256"
ISSUER = AUDIENCE = "terrace"
CLAIMS = ("iss", "aud", "sub", "sid", "tid", "iat", "exp", "jti")
LEEWAY = 30.0  # seconds that clocks may differ
MAX_CHARS = 4096  # a longer one is not even read


@dataclass(frozen=True, slots=True)
class Claims:
    user: str
    session: str
    tenant: str
    expires: float  # seconds since 1970; it is taken for LEEWAY longer


class AccessTokens:
    """Signed with the key of the month (UTC); last month's is still good, older ones are gone."""

    def __init__(self, secret: Secret, minutes: float, clock: Callable[[], float] = now) -> None:
        self.seconds = minutes * 60
        self._secret = secret
        self._clock = clock
        self._keys: dict[str, bytes] = {}

    async def ready(self) -> None:
        """Before the first use: what signs takes a while to import, and the event loop must not wait for it."""
        if not self._keys:
            await asyncio.to_thread(self._key, _month(self._clock()))
            await asyncio.to_thread(import_module, "jwt")

    def issue(self, user_id: str, session_id: str, tenant_id: str) -> str:
        import jwt

        at = self._clock()
        month = _month(at)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user_id,
            "sid": session_id,
            "tid": tenant_id,
            "iat": int(at),
            "exp": math.ceil(at + self.seconds),
            "jti": new_id("jwt"),
        }
        return jwt.encode(claims, self._key(month), ALGORITHM, headers={"kid": month})

    def verify(self, token: str) -> Claims:
        """Raises Unauthenticated: token_expired when it was good once, token_invalid otherwise."""
        import jwt

        if len(token) > MAX_CHARS:
            raise _invalid()
        try:
            month = jwt.get_unverified_header(token).get("kid")
            if month not in self._months():
                raise _invalid()
            # Times are checked below, by our own clock.
            payload = jwt.decode(
                token,
                self._key(month),
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={
                    "require": [*CLAIMS],
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise _invalid() from error
        return self._timely(payload)

    def _timely(self, payload: dict[str, Any]) -> Claims:
        names = [payload[name] for name in ("sub", "sid", "tid")]
        times = [payload[name] for name in ("iat", "exp", "nbf") if name in payload]
        if not all(isinstance(each, str) for each in names) or not all(_is_time(each) for each in times):
            raise _invalid()
        at = self._clock()
        if payload["iat"] > at + LEEWAY or payload.get("nbf", 0) > at + LEEWAY:
            raise _invalid()
        if payload["exp"] + LEEWAY <= at:
            raise Unauthenticated("This login has expired. Refresh it, or log in again.", code="token_expired")
        return Claims(payload["sub"], payload["sid"], payload["tid"], float(payload["exp"]))

    def _months(self) -> set[str]:
        """This month, the one before, and the next for the seconds in which another clock is there already."""
        at = self._clock()
        first = datetime.fromtimestamp(at, UTC).replace(day=1)
        return {_month(at), _month(at + LEEWAY), f"{first - timedelta(days=1):%Y-%m}"}

    def _key(self, month: str) -> bytes:
        if month not in self._keys:
            good = self._months()
            self._keys = {each: key for each, key in self._keys.items() if each in good}
            self._keys[month] = self._secret.key(f"access token {month}")
        return self._keys[month]


def csrf_token(secret: Secret, session_id: str) -> str:
    """What a page logged in by cookie must send along: a page elsewhere cannot know it."""
    return hmac.new(secret.key("csrf"), session_id.encode(), sha256).hexdigest()


def _month(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m}"


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _invalid() -> Unauthenticated:
    return Unauthenticated("This token is not one of ours, or it was changed. Log in again.", code="token_invalid")
