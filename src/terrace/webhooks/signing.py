"""Signatures of the Standard Webhooks form: HMAC-SHA256 over `<id>.<seconds>.<body>`."""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable

PREFIX = "whsec_"
KEY_BYTES = 32


def new_secret() -> str:
    return PREFIX + b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def sign(secret: str, event_id: str, seconds: int, body: bytes) -> str:
    key = b64decode(secret.removeprefix(PREFIX))
    digest = hmac.digest(key, f"{event_id}.{seconds}.".encode() + body, "sha256")
    return "v1," + b64encode(digest).decode()


def headers(keys: Iterable[str], event_id: str, seconds: int, body: bytes) -> dict[str, str]:
    """One signature for each secret that is good now."""
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(sign(key, event_id, seconds, body) for key in keys),
    }
