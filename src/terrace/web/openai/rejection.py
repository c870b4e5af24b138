"""What an upstream's refusal becomes: its own words where they are about the request, ours where they are not."""

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from terrace.errors import TerraceError, Unavailable
from terrace.models.transport.base import Headers, Response
from terrace.web.openai.base import Passthrough
from terrace.web.openai.refusals import error_body, error_headers, status_of

MAX_BYTES = 64 * 1024
KEPT_HEADERS = frozenset({b"retry-after", b"retry-after-ms", b"x-should-retry"})
KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})
KEPT_PREFIX = b"x-ratelimit-"
MIN_SECRET = 6  # characters; shorter ones would garble ordinary words


class Rejection(Exception):
    """A whole error answer for the client. `passing`: another upstream, or a later time, may do better."""

    def __init__(self, status: int, body: bytes, headers: Headers, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.body = body
        self.headers = [(b"content-type", b"application/json"), *headers]
        self.code = code
        self.passing = status == 429 or status >= 500


class _Said(msgspec.Struct):
    error: msgspec.Raw


async def read_rejection(response: Response, target: Passthrough) -> Rejection:
    try:
        body = await response.read(MAX_BYTES)
    except TerraceError:
        body = b""  # the status says enough
    finally:
        response.close()
    status = response.status
    secrets = secrets_in(tuple(target.headers))
    kept = [(name, without_secrets(value, secrets)) for name, value in response.headers if _kept(name)]
    if 400 <= status < 500 and status not in (401, 403, 407) and _speaks_openai(body):
        return Rejection(status, without_secrets(body, secrets), kept, f"upstream_{status}")
    error = _meaning(status, target)
    return Rejection(status_of(error), error_body(error), [*error_headers(error), *kept], error.code)


def _meaning(status: int, target: Passthrough) -> TerraceError:
    name = f"The model server `{target.provider}`"
    if status in (401, 403, 407):
        vendor = target.provider.upper()
        here = f"TERRACE_MODELS__PROVIDERS__{vendor}__API_KEY"
        where = f"{vendor}_API_KEY or {here}" if vendor in ("OPENAI", "ANTHROPIC") else here
        return Unavailable(
            f"{name} does not accept the key that this server is configured with ({status}). "
            f"Its operator must check {where}.",
            code="upstream_denied",
        )
    if status in (404, 405) or status < 400:
        return Unavailable(
            f"{name} has nothing at that address ({status}). Its operator must check the base_url.",
            code="upstream_wrong_url",
        )
    if status == 429:
        return Unavailable(f"{name} allows no more calls for now.", code="upstream_limited", status=429)
    if status < 500:
        return Unavailable(f"{name} refused the request ({status}).", code="upstream_refused", status=status)
    return Unavailable(
        f"{name} failed ({status}).", code="upstream_error", status=status if status in (503, 504) else 502
    )


@lru_cache(maxsize=256)
def secrets_in(headers: tuple[tuple[bytes, bytes], ...]) -> list[bytes]:
    """The keys an upstream is given with `headers`: it may repeat them."""
    keys = [value.rpartition(b" ")[2] for name, value in headers if name.lower() in KEY_HEADERS]
    return [key for key in keys if len(key) >= MIN_SECRET]


def without_secrets(said: bytes, secrets: Sequence[bytes]) -> bytes:
    for secret in secrets:
        said = said.replace(secret, b"[key]")
    return said


def _kept(name: bytes) -> bool:
    return name in KEPT_HEADERS or name.startswith(KEPT_PREFIX)


def _speaks_openai(body: bytes) -> bool:
    try:
        said = msgspec.json.decode(body, type=_Said)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bytes(said.error).startswith(b"{")
