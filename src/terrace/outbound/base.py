"""The outbound port. Whoever fetches a URL that a user gave fetches it here."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from terrace.outbound.urls import check_url

__all__ = ["NO_HEADERS", "Fetched", "Outbound", "check_url"]

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, whatever its status."""

    url: str  # that answered, after redirects
    status: int
    headers: Mapping[str, str]  # names in lower case; of several of a name, joined by a comma
    body: bytes  # decompressed


class Outbound(Protocol):
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
        """One request. The address is checked when it is connected to, and again at each redirect.

        `max_bytes` (settings when None) bounds the decompressed body: a longer one is too_large, or cut there with
        `truncate`. `timeout` seconds hold for everything, redirects included. `redirects` are followed at most; with 0
        a 3xx is the answer. `same_site` refuses those that lead to another host. No cookie is sent or kept.

        Raises Invalid (code bad_url, private_target, too_large, too_many_redirects, other_site, downgraded) and
        Unavailable (code unreachable, timed_out, tls_failed).
        """

    def check(self, url: str) -> str:
        """As `check_url`, and refuses an address written out that `fetch` would refuse. Raises Invalid."""

    async def close(self) -> None: ...
