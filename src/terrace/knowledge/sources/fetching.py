"""Asking servers as a guest: robots.txt is kept to, and nobody is asked faster than they want."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

from terrace.errors import TerraceError, Unavailable
from terrace.outbound.base import Fetched, Outbound

AGENT = "Terrace"
ROBOTS_BYTES = 512 * 1024
MOST_DELAY = 30.0  # seconds; a longer Crawl-delay is shortened to this
MOST_HOSTS = 1000
PATIENCE = 60.0  # seconds of Retry-After that are waited for
BUSY = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Validators:
    """What makes a request conditional."""

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, fetched: Fetched) -> "Validators":
        etag, modified = fetched.headers.get("etag"), fetched.headers.get("last-modified")
        return cls(etag if _sane(etag) else None, modified if _sane(modified) else None)

    def headers(self) -> dict[str, str]:
        given = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in given.items() if value}


def _sane(value: str | None) -> bool:
    return value is not None and len(value) <= 200 and value.isprintable() and value.isascii()


class Pace:
    """When each host may be asked again, for all sources of this process together."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._next: dict[str, float] = {}

    async def turn(self, host: str, delay: float) -> None:
        """Wait until this host may be asked, and take the place."""
        at = max(self._clock(), self._next.get(host, 0.0))
        if len(self._next) >= MOST_HOSTS:
            self._next = {each: when for each, when in self._next.items() if when > self._clock()}
        self._next[host] = at + delay
        if (wait := at - self._clock()) > 0:
            await self._sleep(wait)

    async def pause(self, seconds: float) -> None:
        await self._sleep(seconds)


class Guest:
    """One run's way to the web; it remembers the robots.txt of each host for as long."""

    def __init__(self, outbound: Outbound, pace: Pace, *, delay: float) -> None:
        self._outbound = outbound
        self._pace = pace
        self._delay = delay
        self._robots: dict[str, RobotFileParser] = {}

    async def allowed(self, url: str) -> bool:
        """Whether robots.txt lets us. Raises Unavailable when that can't be found out: then nobody is asked."""
        return (await self._rules(url)).can_fetch(AGENT, url)

    async def get(
        self, url: str, validators: Validators = Validators(), *, redirects: int = 0, max_bytes: int | None = None
    ) -> Fetched:
        """One page, when it is our turn; a busy server gets one more try after the pause it asks for."""
        rules = self._robots.get(_origin(url))
        wanted = rules.crawl_delay(AGENT) if rules is not None else None
        delay = max(self._delay, min(float(wanted or 0), MOST_DELAY))
        headers = {"Accept": "text/html,application/xhtml+xml,application/pdf,*/*;q=0.5", **validators.headers()}
        for last in (False, True):
            await self._pace.turn(urlsplit(url).netloc, delay)
            fetched = await self._outbound.fetch("GET", url, headers=headers, redirects=redirects, max_bytes=max_bytes)
            pause = _pause(fetched)
            if last or pause is None:
                break
            await self._pace.pause(pause)
        return fetched

    async def _rules(self, url: str) -> RobotFileParser:
        origin = _origin(url)
        if origin not in self._robots:
            rules = RobotFileParser()
            await self._pace.turn(urlsplit(url).netloc, self._delay)
            try:
                fetched = await self._outbound.fetch(
                    "GET", f"{origin}/robots.txt", redirects=5, max_bytes=ROBOTS_BYTES, truncate=True
                )
            except TerraceError as error:
                raise Unavailable(f"robots.txt can't be read, so nothing is fetched: {error.message}") from error
            if fetched.status >= 500 or fetched.status == 429:
                raise Unavailable(f"robots.txt answers {fetched.status}, so nothing is fetched.", code="no_robots")
            _read(rules, fetched)
            self._robots[origin] = rules
        return self._robots[origin]


def _read(rules: RobotFileParser, fetched: Fetched) -> None:
    if fetched.status in (401, 403):
        rules.disallow_all = True  # type: ignore[attr-defined]  # typeshed leaves these two out
    elif fetched.status >= 300:
        rules.allow_all = True  # type: ignore[attr-defined]
    else:
        rules.parse(fetched.body.decode("utf-8", "replace").lstrip("\ufeff").splitlines())


def _pause(fetched: Fetched) -> float | None:
    """Seconds the server asks us to wait, if that is bearable."""
    said = fetched.headers.get("retry-after", "")
    if fetched.status not in BUSY or not said.isdigit() or len(said) > 6:
        return None
    return float(said) if float(said) <= PATIENCE else None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
