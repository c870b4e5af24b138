"""The lean client, the hot path: pools of kept-alive connections and one sweep for all timeouts.

Measured on the gateway's path, it makes a whole request 2.7 times cheaper than a general client does, and five times
through TLS.
"""

import asyncio
import re
import select
import ssl
from collections.abc import Sequence
from functools import lru_cache
from math import inf
from urllib.parse import urlsplit

from terrace.errors import Invalid, Unavailable
from terrace.models.transport.base import Headers
from terrace.models.transport.connection import Connection
from terrace.models.transport.exchange import Exchange
from terrace.models.transport.outbox import Outbox

SWEEP = 0.25  # seconds between two looks at the clocks of all connections
PROBE_AFTER = 0.5  # seconds idle after which a pooled connection is probed for a close not yet noticed
SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110, 9.2.2
MAX_TARGETS = 1024  # remembered URLs

_UNSAFE_URL = re.compile(r"[^\x21-\x7e]")
_UNSAFE_HEADER = re.compile(rb"[\r\n\0]")


class Pool:
    """Connections to one host and port."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, cap: int, connect_timeout: float) -> None:
        self.name = f"{host}:{port}"
        self._host = host
        self._port = port
        self._context = context
        self._cap = cap
        self._connect_timeout = connect_timeout
        self._opening = 0
        self._outbox: Outbox | None = None  # made with the first connection: only then there surely is an event loop
        self._idle: list[Connection] = []  # the latest used is used next, so that the others may expire
        self.open: set[Connection] = set()

    def take(self, now: float) -> Connection | None:
        """A connection that is, as far as can be known, still open."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open() and (now - connection.freed_at < PROBE_AFTER or not _readable(connection)):
                return connection
            connection.drop()
        return None

    async def connect(self) -> Connection:
        if len(self.open) + self._opening >= self._cap:
            raise Unavailable(
                f"All {self._cap} connections to {self.name} are busy; try again in a moment.",
                code="upstream_busy",
                retry_after=1.0,
            )
        loop = asyncio.get_running_loop()
        outbox = self._outbox = self._outbox or Outbox(loop)
        self._opening += 1
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self, outbox), self._host, self._port, ssl=self._context
                )
        except TimeoutError:
            raise self._unreachable(f"no connection within {self._connect_timeout:g} seconds") from None
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(
                f"The certificate of {self.name} is not trusted here ({error.verify_message}). If it is your own, "
                "name its authority in SSL_CERT_FILE.",
                code="upstream_unreachable",
            ) from None
        except OSError as error:
            raise self._unreachable(error.strerror or type(error).__name__) from None
        except UnicodeError:
            raise self._unreachable("no host can have that name") from None
        finally:
            self._opening -= 1
        return connection

    def _unreachable(self, why: str) -> Unavailable:
        return Unavailable(f"Nothing answers at {self.name}: {why}.", code="upstream_unreachable")

    def made(self, connection: Connection) -> None:
        self.open.add(connection)

    def free(self, connection: Connection) -> None:
        self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self.open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        for connection in list(self.open):
            connection.drop()


class LeanTransport:
    """`Transport` for `http://` and `https://`. Never retries a request that is not safe to repeat; one that is, only
    when a pooled connection turned out closed before a byte came back."""

    def __init__(
        self,
        *,
        connect_timeout: float = 10.0,
        connections_per_host: int = 10_000,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._cap = connections_per_host
        self._context = context
        self._pools: dict[tuple[str, int, bool], Pool] = {}
        self._targets: dict[str, tuple[Pool, str, str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._clock = _no_clock  # the event loop's, once there is a connection; asking for the loop is a system call
        self._closed = False

    async def send(
        self,
        method: str,
        url: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        first_byte_timeout: float = 120.0,
        idle_timeout: float = 120.0,
        total_timeout: float = inf,
    ) -> Exchange:
        pool, host, path = self._targets.get(url) or self._target(url)
        data = request_head(method, host, path, tuple(headers))
        if body or method in ("POST", "PUT", "PATCH"):
            data = b"%bcontent-length: %d\r\n\r\n%b" % (data, len(body), body)
        else:
            data += b"\r\n"
        while True:
            connection = pool.take(self._clock())
            reused = connection is not None
            if connection is None:
                connection = await self._connect(pool)
            exchange = connection.ask(method, data, first_byte_timeout, idle_timeout, total_timeout)
            try:
                await exchange.head
            except Unavailable as error:
                stale = reused and error.code == "upstream_broke" and not connection.touched
                if stale and method in SAFE_TO_REPEAT:
                    continue
                raise
            except asyncio.CancelledError:
                exchange.close()
                raise
            return exchange

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for pool in self._pools.values():
            pool.close()
        await asyncio.sleep(0)  # let the sockets close

    async def _connect(self, pool: Pool) -> Connection:
        if self._closed:
            raise Unavailable("The server is shutting down.", code="shutting_down")
        connection = await pool.connect()
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        if self._timer is None:
            self._timer = loop.call_later(SWEEP, self._sweep)
        return connection

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = [
            connection
            for pool in self._pools.values()
            for connection in pool.open
            if connection.deadline <= now or connection.final <= now
        ]
        for connection in late:
            connection.expire(now)
        busy = any(pool.open for pool in self._pools.values())
        self._timer = loop.call_later(SWEEP, self._sweep) if busy else None

    def _target(self, url: str) -> tuple[Pool, str, str]:
        """The pool, the Host header and the request target of a URL."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or "@" in parts.netloc
            or _UNSAFE_URL.search(url)
        ):
            raise Invalid("A model server's address looks like http://host:port/path.", code="bad_upstream_url")
        try:
            key = (parts.hostname, parts.port or (443 if secure else 80), secure)
        except ValueError:
            raise Invalid("A model server's port is a number up to 65535.", code="bad_upstream_url") from None
        pool = self._pools.get(key)
        if pool is None:
            context = self._trusting() if secure else None
            pool = self._pools[key] = Pool(key[0], key[1], context, self._cap, self._connect_timeout)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        self._targets[url] = (pool, parts.netloc, path)
        return self._targets[url]

    def _trusting(self) -> ssl.SSLContext:
        """Made with the first https upstream: reading the system's certificates takes a while."""
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context


def _no_clock() -> float:
    return 0.0


@lru_cache(maxsize=256)
def request_head(method: str, host: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Request line and headers, without the length and the empty line. A provider's headers rarely change."""
    lines = [f"{method} {path} HTTP/1.1\r\nhost: {host}\r\naccept-encoding: identity\r\n".encode()]
    for name, value in headers:
        if _UNSAFE_HEADER.search(name) or _UNSAFE_HEADER.search(value):
            raise Invalid("A header for the model server holds a line break.", code="bad_upstream_header")
        lines += (name, b": ", value, b"\r\n")
    return b"".join(lines)


def _readable(connection: Connection) -> bool:
    """Whether an idle connection has something to read, which can only be its end."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
