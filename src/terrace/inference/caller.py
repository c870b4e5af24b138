"""One request and its answer, as this server's doors see them."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from terrace.errors import Invalid, TerraceError
from terrace.inference.replies import EVENTS, JSON, Headers, body_of, headers_of, status_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_encode = msgspec.json.Encoder().encode


class Gone(Exception):
    """Nobody waits for the answer any more."""


class Caller:
    """`watch` has our task cancelled when the client leaves, so that no slot is spent on nobody."""

    def __init__(self, asgi: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.method: str = asgi["method"]
        self.path: str = asgi["path"]
        self._headers: dict[bytes, bytes] = asgi.get("terrace.headers") or dict(asgi["headers"])
        self._exchange = asgi.get("terrace.exchange")
        self._receive = receive
        self._send = send
        self.streaming = False

    def header(self, name: bytes) -> bytes:
        return self._headers.get(name, b"")

    async def body(self, limit: int) -> bytes:
        """Raises Invalid past `limit` bytes."""
        body, more = bytearray(), True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise Invalid(f"The body is larger than {limit:,} bytes.", code="body_too_large", status=413)
        return bytes(body)

    def watch(self) -> None:
        """The body has been read."""
        if self._exchange is not None:
            if self._exchange.gone:
                raise Gone
            self._exchange.watched = True

    async def answer(self, body: bytes, *, status: int = 200, headers: Headers = JSON) -> None:
        complete = [*headers, (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": complete})
        await self._send({"type": "http.response.body", "body": body})

    async def say(self, value: object, status: int = 200) -> None:
        await self.answer(_encode(value), status=status)

    async def piece(self, data: bytes) -> None:
        """Of a stream; the first sends the head, too."""
        if not self.streaming:
            self.streaming = True
            await self._send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, error: TerraceError) -> None:
        """As a status, or, when the stream has begun, as its last event."""
        if self.streaming:
            await self._send({"type": "http.response.body", "body": b"data: " + body_of(error) + b"\n\n"})
        else:
            await self.answer(body_of(error), status=status_of(error), headers=headers_of(error))
