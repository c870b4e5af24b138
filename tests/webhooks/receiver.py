"""A receiver of webhooks that behaves as a test says, and checks signatures by the published words alone.

Standard Webhooks: the signed content is `id.timestamp.payload`, the key is what follows `whsec_` in base64, and the
header holds space-separated `v1,<base64 of HMAC-SHA256>`.
"""

import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.models.transport_server import Peer, plain, serving

Behaviour = Callable[[Peer, "Received"], Awaitable[None]]


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def signed_by(self, secret: str) -> bool:
        content = b".".join([self.id.encode(), self.headers["webhook-timestamp"].encode(), self.body])
        key = base64.b64decode(secret[len("whsec_") :])
        expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        return any(each == f"v1,{expected}" for each in self.headers["webhook-signature"].split(" "))


@dataclass
class Receiver:
    url: str = ""
    received: list[Received] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.received]


@asynccontextmanager
async def receiving(*behaviours: Behaviour | bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Each request meets the next behaviour, the last again and again; bytes are the whole answer."""
    receiver = Receiver()

    async def behave(peer: Peer) -> None:
        raw = await peer.request()
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        request = Received(headers, body)
        behaviour = behaviours[min(len(receiver.received), len(behaviours) - 1)] if behaviours else OK
        receiver.received.append(request)
        if isinstance(behaviour, bytes):
            await peer.write(behaviour)
        else:
            await behaviour(peer, request)

    async with serving(behave, context) as server:
        receiver.url = server.url.replace("localhost", "127.0.0.1") + "/hook"
        yield receiver


OK = plain(b"thanks")


async def hang(peer: Peer, request: Received) -> None:
    await peer.closed()


async def leave(peer: Peer, request: Received) -> None:
    """Closes without an answer."""
