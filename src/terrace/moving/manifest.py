"""What was moved or kept, written down and signed with the installation's secret, so that nobody can change a word."""

import hmac
from pathlib import Path
from typing import Any

import msgspec

from terrace.accounts.secret import Secret
from terrace.errors import Invalid
from terrace.moving.writing import write_private

PURPOSE = "moving manifest"
SIGNATURE = "signature"
MAX_BYTES = 256 * 1024 * 1024

Manifest = dict[str, Any]


def signed(content: Manifest, secret: Secret) -> Manifest:
    return {**content, SIGNATURE: _signature(content, secret)}


def is_genuine(manifest: Manifest, secret: Secret) -> bool:
    content = {name: value for name, value in manifest.items() if name != SIGNATURE}
    return hmac.compare_digest(str(manifest.get(SIGNATURE, "")), _signature(content, secret))


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest))


def decode(data: bytes) -> Manifest:
    """Raises Invalid for what is no manifest."""
    try:
        manifest = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("This is no manifest of Terrace.", code="bad_manifest") from error
    if not isinstance(manifest, dict) or "kind" not in manifest or SIGNATURE not in manifest:
        raise Invalid("This is no manifest of Terrace.", code="bad_manifest")
    return manifest


def keep(manifest: Manifest, folder: Path) -> Path:
    """Written as `<id>.json`, for nobody else to read."""
    path = folder / f"{manifest['id']}.json"
    write_private(path, encode(manifest))
    return path


def read(path: Path) -> Manifest:
    try:
        with path.open("rb") as file:
            return decode(file.read(MAX_BYTES))
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}.", code="unreadable") from error


def _signature(content: Manifest, secret: Secret) -> str:
    written = msgspec.json.encode(content, order="sorted")
    return hmac.digest(secret.key(PURPOSE), written, "sha256").hex()
