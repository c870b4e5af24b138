"""One HTTP request at the /v1 door: its body within bounds, its fields, and the ways to answer it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from terrace.errors import Invalid, TerraceError
from terrace.models.tokens import bound
from terrace.types import Scope, new_id
from terrace.web.access import headers_of, wait_wanted
from terrace.web.openai.base import ASGIScope, Receive, Send
from terrace.web.openai.refusals import error_body, error_event, error_headers, status_of

Fields = dict[str, msgspec.Raw]
"""The top level of a JSON object; each value is kept as it was written."""

JSON_HEADERS = [(b"content-type", b"application/json")]
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

DOWNLOAD_HEADERS = [(b"content-type", b"application/octet-stream")]

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding may raise. A field kept as it was written has only its outline checked: it may still hold any of it."""

_decode_fields = msgspec.json.Decoder(Fields).decode
_ANYBODY = Scope()


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Request:
    __slots__ = (
        "_exchange",
        "_send",
        "_streaming",
        "asgi",
        "bound",
        "counted",
        "identity",
        "owner",
        "patience",
        "receive",
        "started",
    )

    def __init__(self, asgi: ASGIScope, receive: Receive, send: Send) -> None:
        self.asgi = asgi
        self.started = time.perf_counter()
        self.owner = _ANYBODY
        self.identity: str | None = asgi["state"].get("request_id") if "state" in asgi else None
        self.receive = receive
        self.bound = 0  # the most tokens its body can be
        self.patience = 0.0  # seconds it may wait for room under its owner's limits
        self.counted = False  # against the limit of requests
        self._exchange = asgi.get("terrace.exchange")  # on our own server
        self._send = send
        self._streaming = False

    # The client

    def watch(self) -> None:
        """From now on its task is cancelled when the client leaves. The body must have been read."""
        exchange = self._exchange
        if exchange is not None:
            if exchange.gone:
                raise ClientGone
            exchange.watched = True

    def abandoned(self) -> bool:
        """Whether the cancellation that was just caught is the client's doing."""
        exchange = self._exchange
        task = asyncio.current_task()
        if exchange is None or task is None or not (exchange.watched and exchange.gone):
            return False
        task.uncancel()
        return True

    # Reading

    async def fields(self, limit: int) -> Fields:
        """Raises Invalid unless the body is a JSON object of at most `limit` bytes."""
        message = await self.receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            body = await self._rest(body, limit)
        elif message["type"] == "http.disconnect":
            raise ClientGone
        if len(body) > limit:
            raise _too_large(limit)
        self.bound = bound(body)
        if (prefer := headers_of(self.asgi).get(b"prefer")) is not None:
            self.patience = wait_wanted(prefer.decode("latin-1"))
        return fields_of(body)

    async def _rest(self, begun: bytes, limit: int) -> bytes:
        body = bytearray(begun)
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise _too_large(limit)
        return bytes(body)

    # Answering

    def elapsed(self) -> float:
        """Seconds since the request came in."""
        return time.perf_counter() - self.started

    def _headers(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        complete = [*headers, (b"openai-processing-ms", b"%d" % (self.elapsed() * 1000))]
        if self.identity is None:  # otherwise who gave the request its id says it
            complete.append((b"x-request-id", new_id("req").encode()))
        return complete

    async def answer(
        self, body: bytes, *, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = JSON_HEADERS
    ) -> None:
        complete = self._headers(headers)
        complete.append((b"content-length", b"%d" % len(body)))
        if self._exchange is not None:
            self._exchange.answer(status, complete, body)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": complete})
        await self._send({"type": "http.response.body", "body": body})

    async def piece(self, data: bytes) -> None:
        """A piece of a stream; the first one sends the head too."""
        if not self._streaming:
            self._streaming = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers(STREAM_HEADERS)})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def download(self, pieces: AsyncIterator[bytes], length: int, disposition: str) -> None:
        """A file of so many bytes."""
        headers = self._headers(DOWNLOAD_HEADERS)
        headers += [(b"content-length", b"%d" % length), (b"content-disposition", disposition.encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        async for piece in pieces:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self.end()

    async def refuse(self, error: TerraceError) -> None:
        """As a status, or, when the stream has begun, as its last event."""
        if self._streaming:
            await self._send({"type": "http.response.body", "body": error_event(error)})
        else:
            headers = JSON_HEADERS + error_headers(error)
            await self.answer(error_body(error), status=status_of(error), headers=headers)


def fields_of(body: bytes) -> Fields:
    """Raises Invalid unless it is a JSON object."""
    try:
        return _decode_fields(body)
    except msgspec.ValidationError:
        raise Invalid("The body must be a JSON object.", code="invalid_json") from None
    except BAD_JSON as error:
        raise Invalid(f"The body is not valid JSON: {error}.", code="invalid_json") from None


def _too_large(limit: int) -> Invalid:
    return Invalid(f"The body is larger than {limit:,} bytes.", code="body_too_large", status=413)


def text_field(fields: Fields, name: str) -> str:
    """A required string. Raises Invalid naming the parameter."""
    value: str | None = typed_field(fields, name, str, "a string")
    if not value:
        raise Invalid(f"`{name}` is required and must be a string.", code="invalid_parameter", param=name)
    return value


def typed_field(fields: Fields, name: str, kind: Any, wanted: str) -> Any:
    """An optional field of a type; None when absent or null. `wanted` completes the sentence "must be"."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _decoder(kind).decode(raw)
    except BAD_JSON:
        raise Invalid(f"`{name}` must be {wanted}.", code="invalid_parameter", param=name) from None


@lru_cache(maxsize=64)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind | None)
