"""Secrets that are handed out once: `<prefix>_<body of an id>_<secret>`. The id finds the row, its hash the holder."""

import hashlib
import hmac
import re
import secrets

_BODY = "[0-9a-z]{26}"
_SECRET = "[A-Za-z0-9_-]{43}"  # 256 bits


def mint(prefix: str, row_id: str) -> tuple[str, str]:
    """(the ticket for its holder, the hash to keep)."""
    secret = secrets.token_urlsafe(32)
    return f"{prefix}_{row_id.partition('_')[2]}_{secret}", digest(secret)


def parse(prefix: str, id_prefix: str, ticket: str) -> tuple[str, str] | None:
    """(id of its row, hash of its secret), or None when it is no such ticket."""
    found = re.fullmatch(f"{prefix}_({_BODY})_({_SECRET})", ticket.strip()) if len(ticket) < 128 else None
    return (f"{id_prefix}_{found[1]}", digest(found[2])) if found else None


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def same(one: str, another: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(one.encode(), another.encode())
