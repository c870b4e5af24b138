"""The transport port: a lean client (the hot path), aiohttp where a proxy stands before https."""

from collections.abc import AsyncIterator, Sequence
from math import inf
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]


class Response(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers:
        """Names in lower case."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Body pieces as they arrive. Raises Unavailable(code=upstream_broke | upstream_stalled)."""

    async def read(self, limit: int = 16 * 1024 * 1024) -> bytes:
        """The whole body. Raises Unavailable(code=upstream_too_large) past `limit`."""

    def close(self) -> None:
        """Drop the connection unless the body was read to its end; safe to call twice."""


class Transport(Protocol):
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
    ) -> Response:
        """Returns once the response head is in. `first_byte_timeout` runs to the first byte of the body,
        `idle_timeout` between two of its pieces, `total_timeout` over all; each is held to within half a second.
        Raises Unavailable with a code of `upstream_unreachable`, `upstream_timeout`, `upstream_stalled`,
        `upstream_busy` or `upstream_broke`; never retries by itself a request whose bytes may have arrived."""

    async def close(self) -> None: ...
