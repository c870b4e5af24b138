"""What web pages of other sites can make a browser send is refused at the edge.

Three checks: an Origin must be our own (against cross-site requests), what the browser marks as coming from another
site may only be a plain navigation, and as long as nobody logs in, the Host header must be ours (against DNS
rebinding, which makes a page elsewhere look like ours; it has no login, so later it gains nothing). Programs send
neither Origin nor Sec-Fetch-Site and pass.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_address

from terrace.errors import Denied, Invalid, TerraceError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

CONTENT_SECURITY_POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "font-src 'self'",
    "manifest-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def hostname(host: str) -> str:
    """`Host` without its port, in lower case; IPv6 keeps its brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


class Guard:
    """`open`: whether nobody has to log in, which is when the Host header counts."""

    def __init__(
        self, hosts: Iterable[str] = (), origins: Iterable[str] = (), *, open: Callable[[], bool] = lambda: True
    ) -> None:
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in hosts}
        self._origins = frozenset(origins)
        self._open = open

    def check(self, method: str, headers: dict[bytes, bytes]) -> TerraceError | None:
        """The refusal, or None."""
        host = headers.get(b"host", b"").decode("latin-1")
        if not host:
            return Invalid("The request has no Host header.", code="host_missing", status=400)
        if self._open() and hostname(host) not in self._hosts:
            return Denied(
                "This Host is not served here. Open http://localhost, or name the host in TERRACE_WEB__HOSTS.",
                code="host_not_allowed",
                status=421,
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and not self._own(origin, host):
            return Denied(
                "Requests from other web sites are refused. Behind a proxy, name the address people use in "
                "TERRACE_WEB__PUBLIC_URL.",
                code="origin_not_allowed",
            )
        site = headers.get(b"sec-fetch-site", b"none")
        if (
            not origin
            and site not in (b"same-origin", b"none")
            and not (method in ("GET", "HEAD") and headers.get(b"sec-fetch-mode") == b"navigate")
        ):
            return Denied("Requests from other web sites are refused.", code="cross_site")
        return None

    def _own(self, origin: str, host: str) -> bool:
        return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}") or origin in self._origins


Headers = tuple[tuple[bytes, bytes], ...]


class CORS:
    """What pages of the origins an operator has named may do: call the API with a key or token, never with cookies."""

    ALLOWED: Headers = (
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
        (
            b"access-control-allow-headers",
            b"authorization, content-type, idempotency-key, last-event-id, prefer, x-access-token, x-api-key, "
            b"x-request-id",
        ),
        (b"access-control-max-age", b"600"),
    )
    EXPOSED = (b"access-control-expose-headers", b"retry-after, ratelimit, ratelimit-policy, x-job-id, x-request-id")

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origin.rstrip("/").encode() for origin in origins)

    def headers(self, origin: bytes) -> Headers:
        """What an answer to that origin's page carries; nothing for others."""
        if origin not in self._origins:
            return ()
        return ((b"access-control-allow-origin", origin), (b"vary", b"origin"), self.EXPOSED)

    def preflight(self, method: str, headers: dict[bytes, bytes]) -> Headers | None:
        """The answer to a browser that asks before it sends; None when this is no such question."""
        if method != "OPTIONS" or b"access-control-request-method" not in headers:
            return None
        allowed = self.headers(headers.get(b"origin", b""))
        return (*allowed, *self.ALLOWED) if allowed else None
