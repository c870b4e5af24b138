"""Where a request comes from, and how people reach us."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from terrace.web.access import Doorkeeper
from terrace.web.security import LOOPBACK_NAMES, hostname, is_loopback

MAX_AGENT = 200  # characters of a browser's name worth keeping
FORWARDED = (
    b"forwarded", b"via", b"x-real-ip", b"true-client-ip", b"cf-connecting-ip",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-server",
)  # fmt: skip
"""What proxies add: whoever sends one does not sit at this machine."""


@dataclass(frozen=True, slots=True)
class Where:
    address: str  # the client's, as far as it can be trusted
    agent: str
    near: bool  # on this very machine, by its own name, no proxy in between
    secure: bool  # by https
    base: str  # what our addresses begin with in links, such as https://ai.example.org


async def _where(request: Request) -> Where:
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    headers = dict(request.scope["headers"])
    address = doorkeeper.address(request.scope, headers)
    host = request.headers.get("host", "")
    direct = (
        is_loopback(address) and hostname(host) in LOOPBACK_NAMES and not any(name in headers for name in FORWARDED)
    )
    secure = doorkeeper.secure(request.scope, headers)
    public = request.app.state.services.settings.web.public_url.rstrip("/")
    return Where(
        address=address,
        agent=request.headers.get("user-agent", "")[:MAX_AGENT],
        near=direct,
        secure=secure,
        base=public or f"http{'s' if secure else ''}://{host}",
    )


Origin = Annotated[Where, Depends(_where)]
