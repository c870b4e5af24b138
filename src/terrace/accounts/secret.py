"""The installation's secret: every key that signs something is derived from it."""

import os
import secrets
from base64 import b64decode, b64encode
from contextlib import suppress
from pathlib import Path

from terrace import settings
from terrace.errors import Invalid

MIN_CHARS = 32
MIN_DISTINCT = 8
MAX_BYTES = 64 * 1024
KNOWN = (  # what tutorials and examples are full of; letters and digits alone are compared
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "yoursecret",
    "mysecret",
    "supersecret",
    "secretkey",
    "defaultsecret",
    "jwtsecret",
    "djangoinsecure",
    "insertsecret",
    "password",
    "0123456789abcdef0123456789abcdef",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
)


class Secret:
    """Raises Invalid for a value that could be guessed. Shows itself nowhere."""

    def __init__(self, value: str) -> None:
        _check(value)
        self._value = value.encode()

    def key(self, purpose: str) -> bytes:
        """32 bytes that serve this purpose alone (HKDF-SHA256, RFC 5869)."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(algorithm=SHA256(), length=32, salt=b"terrace", info=purpose.encode()).derive(self._value)

    def seal(self, purpose: str, text: str) -> str:
        """What only this installation can `unseal` (AES-256-GCM): credentials that we must be able to use."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self.key(f"seal {purpose}")).encrypt(nonce, text.encode(), None)
        return b64encode(nonce + sealed).decode()

    def unseal(self, purpose: str, sealed: str) -> str:
        """Raises Invalid when it was sealed with another secret or for another purpose."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            packed = b64decode(sealed, validate=True)
            return AESGCM(self.key(f"seal {purpose}")).decrypt(packed[:12], packed[12:], None).decode()
        except (InvalidTag, ValueError) as error:
            raise Invalid(
                "What was kept secret here was sealed with another secret (TERRACE_ACCOUNTS__SECRET). "
                "Bring the old one back, or enter it again.",
                code="sealed_otherwise",
            ) from error

    def __repr__(self) -> str:
        return "Secret(...)"


def load_secret(options: settings.Accounts, data: Path) -> Secret:
    """`accounts.secret`, else `accounts.secret_file`, else `<data>/secret`, which is made when missing.

    Raises Invalid when there is none to trust.
    """
    given = options.secret.get_secret_value()
    if given:
        return Secret(given)
    if options.secret_file is not None:
        # A container's orchestrator mounts it for a group; nobody else may read it.
        return Secret(_read(options.secret_file, forbidden=0o007))
    path = data / "secret"
    if not path.exists():
        _make(path)
    return Secret(_read(path, forbidden=0o077))


def _check(value: str) -> None:
    if len(value) < MIN_CHARS:
        raise Invalid(
            f"The secret (TERRACE_ACCOUNTS__SECRET) is too short: give {MIN_CHARS} random characters or more, "
            "or leave it empty and one is made.",
            code="weak_secret",
        )
    plain = "".join(each for each in value.lower() if each.isalnum())
    if len(set(value)) < MIN_DISTINCT or any(known in plain for known in KNOWN):
        raise Invalid(
            "The secret (TERRACE_ACCOUNTS__SECRET) is one that others can guess. Give random characters, "
            "or leave it empty and one is made.",
            code="weak_secret",
        )


def _read(path: Path, *, forbidden: int) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_BYTES)
    except OSError as error:
        raise Invalid(f"The secret cannot be read from {path}: {error.strerror}.", code="secret_unreadable") from error
    if os.name == "posix" and mode & forbidden:
        raise Invalid(f"Others can read the secret in {path}. Run: chmod 600 {path}", code="secret_exposed")
    try:
        return content.decode().strip()
    except UnicodeDecodeError as error:
        raise Invalid(f"The secret in {path} is not text.", code="secret_unreadable") from error


def _make(path: Path) -> None:
    """Complete or not at all; of two processes that start together one wins, and both read what it wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".secret.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
