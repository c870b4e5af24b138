"""The transport a house uses: the lean client, or aiohttp for https where a proxy stands between."""

from collections.abc import Coroutine
from math import inf
from typing import Any
from urllib.request import getproxies

from terrace.models.transport.base import Headers, Response, Transport
from terrace.models.transport.lean import LeanTransport
from terrace.models.transport.tls import TLSTransport
from terrace.settings import Models

MAX_CONNECTIONS = 20_000  # to one host; a machine has 28,000 local ports


class SchemeTransport:
    """Chooses by the URL's scheme."""

    def __init__(self, plain: Transport, tls: Transport) -> None:
        self._plain = plain
        self._tls = tls

    def send(
        self,
        method: str,
        url: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        first_byte_timeout: float = 120.0,
        idle_timeout: float = 120.0,
        total_timeout: float = inf,
    ) -> Coroutine[Any, Any, Response]:
        chosen = self._tls if url.startswith("https:") else self._plain
        return chosen.send(
            method,
            url,
            headers,
            body,
            first_byte_timeout=first_byte_timeout,
            idle_timeout=idle_timeout,
            total_timeout=total_timeout,
        )

    async def close(self) -> None:
        await self._plain.close()
        await self._tls.close()


def open_transport(settings: Models) -> Transport:
    """Nothing is connected yet. Several providers may share a host, so the cap leaves room for each one's calls."""
    calls = sum(provider.concurrency or settings.concurrency for provider in settings.providers.values())
    cap = min(calls + settings.concurrency, MAX_CONNECTIONS)
    lean = LeanTransport(connect_timeout=settings.connect_timeout, connections_per_host=cap)
    if "https" not in getproxies():
        return lean
    return SchemeTransport(lean, TLSTransport(connect_timeout=settings.connect_timeout, connections_per_host=cap))
