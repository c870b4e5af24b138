"""What people and programs show at the door, as text: API keys, refresh tokens, links.

Each is `<kind>_<id without its prefix>_<secret>`. The id finds the row; the secret is 256 random bits, of which SHA-256
is kept.
"""

import hmac
import re
import secrets
from hashlib import sha256
from typing import NamedTuple

_ID, _SECRET = "([0-9a-z]{26})", "([A-Za-z0-9_-]{43})"
_KEY = re.compile(f"trc_{_ID}_{_SECRET}")
_REFRESH = re.compile(f"trr_{_ID}_([1-9][0-9]{{0,8}})_{_SECRET}")
_RESET = re.compile(f"trp_{_ID}_{_SECRET}")


class Credential(NamedTuple):
    """A credential taken apart."""

    id: str  # of the row it belongs to
    secret: str
    generation: int = 0  # of a refresh token


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def same(secret: str, stored: str | None) -> bool:
    """Whether `stored` is the digest of it; as quick when it is not."""
    return stored is not None and hmac.compare_digest(digest(secret), stored)


def key_text(key_id: str, secret: str) -> str:
    return f"trc_{key_id.removeprefix('key_')}_{secret}"


def parse_key(text: str) -> Credential | None:
    found = _KEY.fullmatch(text)
    return Credential(f"key_{found[1]}", found[2]) if found else None


def refresh_text(session_id: str, generation: int, secret: str) -> str:
    return f"trr_{session_id.removeprefix('ses_')}_{generation}_{secret}"


def parse_refresh(text: str) -> Credential | None:
    found = _REFRESH.fullmatch(text)
    return Credential(f"ses_{found[1]}", found[3], int(found[2])) if found else None


def reset_text(reset_id: str, secret: str) -> str:
    return f"trp_{reset_id.removeprefix('rst_')}_{secret}"


def parse_reset(text: str) -> Credential | None:
    found = _RESET.fullmatch(text)
    return Credential(f"rst_{found[1]}", found[2]) if found else None
