"""What the head of a request may be. httptools has parsed it strictly; this is what it leaves open."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from httptools import HttpParserCallbackError, HttpParserError, parse_url

from terrace.types import new_id
from terrace.web.exchange import STATUS_LINES
from terrace.web.problems import problem

log = logging.getLogger("terrace.web")

MAX_TARGET_BYTES = 8 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
ONE_OF_A_KIND = frozenset({b"host", b"authorization", b"content-type", b"x-api-key", b"transfer-encoding", b"expect"})


class Refusal(Exception):
    """A request that is not served: raised while parsing."""

    def __init__(self, status: int, detail: str, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.detail = detail
        self.code = code

    def answer(self, date: bytes) -> bytes:
        """The whole answer, the last on its connection. `date` is that header's line."""
        identity = new_id("req")
        kind = {503: "unavailable", 500: "internal"}.get(self.status, "invalid")
        body = bytes(problem(self.status, self.detail, code=self.code, kind=kind, request_id=identity).body)
        retry = b"retry-after: 1\r\n" if self.status == 503 else b""
        return (
            b"%b%bcontent-type: application/problem+json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
            b"connection: close\r\n\r\n%b"
        ) % (STATUS_LINES[self.status], date, len(body), identity.encode(), retry, body)


TOO_MANY = Refusal(503, "The server has as many connections as it can hold. Try again in a moment.", "too_busy")
TARGET_TOO_LONG = Refusal(414, f"The address is longer than {MAX_TARGET_BYTES:,} bytes.", "target_too_long")
TOO_MANY_HEADERS = Refusal(431, f"The request has more than {MAX_HEADERS} headers.", "too_many_headers")
HEAD_TOO_LONG = Refusal(431, f"The headers are longer than {MAX_HEAD_BYTES:,} bytes.", "headers_too_long")
OURS = Refusal(500, "Something went wrong on our side.", "internal")
SLOW = Refusal(408, "The request did not come in time.", "request_timeout")


def refusal_of(error: HttpParserError) -> Refusal:
    """What could not be parsed, in words; ours where a callback raised it."""
    cause = error.__context__ if isinstance(error, HttpParserCallbackError) else None
    if isinstance(cause, Refusal):
        return cause
    if cause is None:
        return Refusal(400, f"This is not an HTTP/1.1 request: {error}.", "bad_request")
    if isinstance(cause, HttpParserError | ValueError):
        return Refusal(400, "The request's address is none.", "bad_target")
    log.error("a request could not be read", exc_info=cause)
    return OURS


def address_of(given: Any) -> tuple[str, int] | None:
    return (str(given[0]), int(given[1])) if isinstance(given, tuple | list) else None


def split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it was sent, and query. Raises Refusal, or what httptools raises."""
    parts = parse_url(target)
    if parts.path is None:
        raise Refusal(400, "The request names no path.", "bad_target")
    path = parts.path.decode("ascii")
    return unquote(path) if "%" in path else path, parts.path, parts.query or b""


short_target = lru_cache(maxsize=1024)(split_target)


def head_size(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> int:
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def check_repeated(headers: Sequence[tuple[bytes, bytes]]) -> None:
    seen = set()
    for name, _ in headers:
        if name in seen and name in ONE_OF_A_KIND:
            raise Refusal(400, f"The request has several headers `{name.decode('latin-1')}`.", "repeated_header")
        seen.add(name)


def check_framing(version: str, headers: dict[bytes, bytes]) -> None:
    """httptools has refused Content-Length beside Transfer-Encoding, and two lengths."""
    if version not in ("1.0", "1.1"):
        raise Refusal(505, "HTTP/1.1 is spoken here.", "bad_version")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (version == "1.0" or coding.strip().lower() != b"chunked"):
        raise Refusal(501, "The only Transfer-Encoding taken is `chunked`.", "bad_transfer_encoding")
