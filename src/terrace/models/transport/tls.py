"""https through aiohttp, which knows proxies; imported with the first such upstream."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from math import inf
from typing import TYPE_CHECKING

from terrace.errors import Invalid, Unavailable
from terrace.models.transport.base import Headers

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

READ_BUFFER = 64 * 1024


class TLSResponse:
    """An aiohttp response as a `Response`."""

    def __init__(self, response: "ClientResponse", first: float, idle: float, final: float) -> None:
        """`first` and `final` are moments on the loop's clock, `idle` is seconds."""
        self._response = response
        self._first = first
        self._idle = idle
        self._final = final
        self.status = response.status
        self.headers: list[tuple[bytes, bytes]] = [(name.lower(), value) for name, value in response.raw_headers]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        deadline, seen = self._first, False
        try:
            while clock() < self._final:  # pieces that are always there would never meet the timeout
                async with asyncio.timeout_at(min(deadline, self._final)):
                    piece = await self._response.content.readany()
                if not piece:
                    return
                yield piece
                deadline, seen = clock() + self._idle, True
            raise TimeoutError
        except TimeoutError:
            self.close()
            raise _late(seen, clock() >= self._final, self._idle) from None
        except Exception as error:
            self.close()
            raise as_unavailable(error) from None

    async def read(self, limit: int = 16 * 1024 * 1024) -> bytes:
        read = bytearray()
        async for piece in self:
            read += piece
            if len(read) > limit:
                self.close()
                raise Unavailable(
                    f"The model server's answer is larger than {limit:,} bytes, the limit of models.max_answer_bytes.",
                    code="upstream_too_large",
                )
        return bytes(read)

    def close(self) -> None:
        self._response.close()


class TLSTransport:
    """`Transport` for `https://`. Honours the proxies and certificates that the environment names for every program."""

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
        self._session: ClientSession | None = None

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
    ) -> TLSResponse:
        from aiohttp import ClientTimeout
        from yarl import URL

        now = asyncio.get_running_loop().time()
        first, final = now + first_byte_timeout, now + total_timeout
        try:
            async with asyncio.timeout_at(min(first, final)):
                response = await self._open().request(
                    method,
                    URL(url, encoded=True),
                    headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
                    data=body or None,
                    allow_redirects=False,
                    timeout=ClientTimeout(total=None, sock_connect=self._connect_timeout),
                )
        except Exception as error:
            raise as_unavailable(error) from None
        return TLSResponse(response, first, idle_timeout, final)

    def _open(self) -> "ClientSession":
        if self._session is None:
            from aiohttp import ClientSession, DummyCookieJar, TCPConnector

            connector = TCPConnector(
                limit=0,
                limit_per_host=self._cap,
                keepalive_timeout=15,
                ttl_dns_cache=60,
                ssl=self._context if self._context is not None else True,
            )
            self._session = ClientSession(
                connector=connector,
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,
                trust_env=True,
                read_bufsize=READ_BUFFER,
                headers={"accept-encoding": "identity"},
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _late(seen: bool, over: bool, idle: float) -> Unavailable:
    if over:
        return Unavailable("The model server did not finish in time.", code="upstream_timeout")
    if seen:
        return Unavailable(f"The model server sent nothing for {idle:g} seconds.", code="upstream_stalled")
    return Unavailable("The model server did not begin to answer in time.", code="upstream_timeout")


def as_unavailable(error: Exception) -> Exception:
    """What went wrong, in our words; anything that is not the network's fault stays what it is."""
    import aiohttp

    match error:
        case aiohttp.ClientConnectorCertificateError():
            return Unavailable(
                f"The certificate of {error.host} is not trusted here. If it is your own, name its authority in "
                "SSL_CERT_FILE.",
                code="upstream_unreachable",
            )
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError() | aiohttp.ClientProxyConnectionError():
            return Unavailable(
                "The model server can't be reached. Check its address and this machine's network.",
                code="upstream_unreachable",
            )
        case TimeoutError():
            return Unavailable("The model server did not begin to answer in time.", code="upstream_timeout")
        case aiohttp.InvalidURL():
            return Invalid("A model server's address looks like https://host/path.", code="bad_upstream_url")
        case aiohttp.ClientError() | ConnectionError():
            return Unavailable("The model server broke off or sent nonsense.", code="upstream_broke")
    return error
