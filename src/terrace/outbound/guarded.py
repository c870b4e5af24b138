"""Outbound over aiohttp. The lock is where a socket is made: the address checked is the address connected to,
whatever a name resolved to before, however it was spelled, and whoever redirected there."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import aclosing
from os import strerror
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

from terrace import __version__, settings
from terrace.errors import Invalid, TerraceError, Unavailable
from terrace.outbound.addresses import Reach
from terrace.outbound.base import NO_HEADERS, Fetched, Outbound
from terrace.outbound.inflating import ENCODINGS, inflated
from terrace.outbound.urls import KEPT, check_url, host_of, origin, redacted, same_site

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from aiohttp.abc import AbstractResolver

REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEP_METHOD = frozenset({307, 308})
OURS_ALONE = frozenset({"authorization", "cookie", "proxy-authorization"})  # not for another host
MAX_LINE_BYTES = 16 * 1024  # of a status line or header; a head has at most 128 of them


class Refused(OSError):
    """What the lock raises; a kind of OSError, for the connector passes only those on."""


def open_outbound(options: settings.Outbound) -> Outbound:
    """Nothing is connected yet. Raises Invalid for an `allow` that is no network."""
    return Guarded(options)


class Guarded:
    """Every request has its own connection, so nothing of one caller's reaches another. No proxy is used."""

    def __init__(
        self,
        options: settings.Outbound,
        *,
        resolver: "AbstractResolver | None" = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._options = options
        self._reach = Reach(options.allow)
        self._resolver = resolver
        self._context = context
        self._opened: ClientSession | None = None

    def check(self, url: str) -> str:
        url = check_url(url)
        host = host_of(url)
        address = "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host
        if (":" in address or address.replace(".", "").isdigit()) and not self._reach.allows(address):
            raise _private(url)
        return url

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        max_bytes: int | None = None,
        timeout: float | None = None,
        redirects: int = 0,
        same_site: bool = False,
        truncate: bool = False,
    ) -> Fetched:
        url = self.check(url)
        limit = self._options.max_bytes if max_bytes is None else max_bytes
        seconds = self._options.timeout if timeout is None else timeout
        sent = {name.lower(): value for name, value in headers.items()}
        try:
            async with asyncio.timeout(seconds):
                for _ in range(redirects + 1):
                    answer = await self._ask(method, url, sent, body, limit, truncate, follow=redirects > 0)
                    if isinstance(answer, Fetched):
                        return answer
                    url, method, body, sent = self._next(url, answer, method, body, sent, same_site)
        except TimeoutError:
            raise _timed_out(url, seconds) from None
        raise Invalid(
            f"{redacted(url)} is the end of more than {redirects} redirects; give the address they lead to.",
            code="too_many_redirects",
        )

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def _ask(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        limit: int,
        truncate: bool,
        *,
        follow: bool,
    ) -> "Fetched | _Redirect":
        """The answer, or where it points when that is to be followed."""
        from yarl import URL

        try:
            async with self._session().request(
                method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
            ) as response:
                if follow and response.status in REDIRECTS and "location" in response.headers:
                    return _Redirect(response.status, response.headers["location"])
                content = b"" if method == "HEAD" else await _body(response, url, limit, truncate)
                return Fetched(url, response.status, _headers(response), content)
        except (TerraceError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise self._told(url, error) from error

    def _next(
        self, url: str, redirect: "_Redirect", method: str, body: bytes | None, headers: dict[str, str], stay: bool
    ) -> tuple[str, str, bytes | None, dict[str, str]]:
        target = self.check(_joined(url, redirect.location))
        if url.startswith("https:") and target.startswith("http:"):
            raise Invalid(
                f"{redacted(url)} redirects from https to {redacted(target)}, which is not encrypted; that is not "
                "followed.",
                code="downgraded",
            )
        if stay and not same_site(url, target):
            raise Invalid(
                f"{redacted(url)} redirects to another site, {redacted(target)}; that is not followed.",
                code="other_site",
            )
        if origin(url) != origin(target):
            headers = {name: value for name, value in headers.items() if name not in OURS_ALONE}
        if redirect.status in KEEP_METHOD or method in ("GET", "HEAD"):
            return target, method, body, headers
        return target, "GET", None, {name: each for name, each in headers.items() if not name.startswith("content-")}

    def _session(self) -> "ClientSession":
        if self._opened is None:
            from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

            from terrace.outbound.resolving import Resolver

            connector = TCPConnector(
                limit=0,  # who asks is bounded elsewhere; a full pool would let one caller hold up another
                force_close=True,
                use_dns_cache=False,
                resolver=self._resolver or Resolver(),
                socket_factory=self._socket,
                ssl=self._context or True,
            )
            self._opened = ClientSession(
                connector=connector,
                cookie_jar=DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=ClientTimeout(total=None, connect=self._options.connect_timeout),
                headers={"User-Agent": f"Terrace/{__version__}", "Accept-Encoding": ENCODINGS},
                max_line_size=MAX_LINE_BYTES,
                max_field_size=MAX_LINE_BYTES,
            )
        return self._opened

    def _socket(self, found: Any) -> socket.socket:
        """`found`: what getaddrinfo gives. The socket is connected to the very address looked at here."""
        family, type_, protocol, _, address = found
        if not self._reach.allows(address[0]):
            raise Refused("not a public address")
        return socket.socket(family, type_, protocol)

    def _told(self, url: str, error: Exception) -> TerraceError:
        import aiohttp

        where = redacted(url)
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, Refused):
            return _private(url)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            why = getattr(error.certificate_error, "verify_message", "") or "it is not valid"
            return Unavailable(f"The certificate of {where} cannot be trusted: {why}.", code="tls_failed")
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            return Unavailable(f"No encrypted connection to {where} could be made.", code="tls_failed")
        if isinstance(error, TimeoutError):
            return _timed_out(url, self._options.connect_timeout)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return Unavailable(f"No address is known for the host of {where}.", code="unreachable")
        if isinstance(error, aiohttp.ClientConnectorError):
            why = strerror(error.errno).lower() if error.errno else "no connection"
            return Unavailable(f"{where} cannot be reached: {why}.", code="unreachable")
        if isinstance(error, aiohttp.InvalidURL | ValueError):
            return Invalid(f"{where} cannot be asked for: its URL or a header is wrong.", code="bad_url")
        if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
            return Unavailable(f"{where} closed the connection without an answer.", code="unreachable")
        if isinstance(error, aiohttp.ClientError | OSError):
            return Unavailable(f"{where} sent an answer that breaks off or is not HTTP.", code="unreachable")
        raise error


class _Redirect:
    __slots__ = ("location", "status")

    def __init__(self, status: int, location: str) -> None:
        self.status = status
        self.location = location


def _joined(url: str, location: str) -> str:
    """Where a redirect points. Servers write spaces and raw UTF-8 there."""
    raw = location.encode("utf-8", "surrogateescape")
    try:
        return urljoin(url, quote(raw, safe=KEPT + "#"))
    except ValueError:
        raise Invalid(f"{redacted(url)} redirects to what is no URL.", code="bad_url") from None


async def _body(response: "ClientResponse", url: str, limit: int, truncate: bool) -> bytes:
    read = bytearray()
    encoding = response.headers.get("content-encoding", "")
    async with aclosing(inflated(response.content.iter_any(), encoding)) as pieces:
        async for piece in pieces:
            read += piece
            if len(read) > limit:
                if truncate:
                    return bytes(read[:limit])
                raise Invalid(f"The answer of {redacted(url)} is larger than {limit:,} bytes.", code="too_large")
            await asyncio.sleep(0)
    return bytes(read)


def _headers(response: "ClientResponse") -> dict[str, str]:
    read: dict[str, str] = {}
    for name, value in response.headers.items():
        name = name.lower()
        read[name] = f"{read[name]}, {value}" if name in read else value
    return read


def _private(url: str) -> Invalid:
    return Invalid(
        f"The host of {redacted(url)} is not on the public internet. The operator may allow its address by "
        "TERRACE_OUTBOUND__ALLOW.",
        code="private_target",
    )


def _timed_out(url: str, seconds: float) -> Unavailable:
    return Unavailable(f"{redacted(url)} did not answer within {seconds:g} seconds.", code="timed_out")
