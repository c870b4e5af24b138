"""The hot path: the client's bytes to an OpenAI-compatible upstream, the upstream's bytes to the client.

Only the model's name is changed on the way there, nothing on the way back; usage is read from the end.
"""

import asyncio
import random
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

import msgspec

from terrace.errors import TerraceError, Unavailable
from terrace.models.base import Call, Meter, Usage
from terrace.models.transport.base import Response, Transport
from terrace.settings import Models as Settings
from terrace.web.openai.base import Passthrough
from terrace.web.openai.framing import Framer, usage_of
from terrace.web.openai.rejection import Rejection, read_rejection, secrets_in, without_secrets
from terrace.web.openai.request import BAD_JSON, Fields, Request

CHAT_PATH = "/chat/completions"
REPEATABLE = frozenset({"upstream_unreachable", "upstream_broke"})  # nothing of an answer had come
FIRST_PAUSE = 0.1  # seconds before the first repeat; doubles, with jitter
ASK_USAGE = msgspec.Raw(b'{"include_usage":true}')

_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=1024)
def _quoted(model: str) -> msgspec.Raw:
    return msgspec.Raw(_encode(model))


class Relay:
    def __init__(self, transport: Transport, settings: Settings, meter: Meter | None) -> None:
        self._transport = transport
        self._settings = settings
        self._meter = meter
        self._no_usage: set[str] = set()  # providers that do not know stream_options

    async def run(
        self, request: Request, fields: Fields, target: Passthrough, path: str, stream: bool, wants_usage: bool
    ) -> bool:
        """Answer from `target`. False when nothing was sent because it failed and models.fallback may do better."""
        trip = Trip(request, target)
        gate = target.gate
        try:
            if not gate.try_acquire():
                await gate.acquire(request.owner)
            try:
                body = await self._attempts(trip, fields, path, stream, wants_usage)
            finally:
                gate.release()
            if body is not None:
                await request.answer(body)
        except Rejection as rejection:
            trip.failed(rejection.code)
            if rejection.passing and self._settings.fallback:
                return False
            await request.answer(rejection.body, status=rejection.status, headers=rejection.headers)
        except TerraceError as error:
            trip.failed(error.code)
            if isinstance(error, Unavailable) and self._settings.fallback and trip.first_token is None:
                return False
            raise
        except asyncio.CancelledError:
            trip.outcome = "cancelled"
            raise
        finally:
            if self._meter is not None:
                self._meter.record(trip.call())
        return True

    async def _attempts(self, trip: "Trip", fields: Fields, path: str, stream: bool, wants_usage: bool) -> bytes | None:
        """A whole answer, or None when it was streamed. Once more, after a pause, when the upstream was away or broke
        off before anything was sent on."""
        left = self._settings.retries
        pause = FIRST_PAUSE
        while True:
            try:
                response = await self._ask(fields, trip.target, path, stream, wants_usage)
                try:
                    if not stream:
                        return await self._whole(trip, response)
                    await self._stream(trip, response, drop_usage=not wants_usage)
                    return None
                finally:
                    response.close()
            except Unavailable as error:
                if not left or error.code not in REPEATABLE or trip.first_token is not None:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            left -= 1
            pause *= 2

    async def _ask(self, fields: Fields, target: Passthrough, path: str, stream: bool, wants_usage: bool) -> Response:
        """The head of a good answer. Raises Rejection for any other."""
        fields["model"] = _quoted(target.model)
        asks = stream and not wants_usage and target.provider not in self._no_usage
        body = _encode(_asking_usage(fields) if asks else fields)
        settings = self._settings
        response = await self._transport.send(
            "POST",
            target.url if path == CHAT_PATH else target.url.removesuffix(CHAT_PATH) + path,
            _with_type(target.headers),
            body,
            # Without a stream the first byte comes when the whole answer is written.
            first_byte_timeout=settings.first_token_timeout if stream else settings.total_timeout,
            idle_timeout=settings.idle_timeout,
            total_timeout=settings.total_timeout,
        )
        if response.status == 200:
            return response
        rejection = await read_rejection(response, target)
        if asks and rejection.status in (400, 422) and b"stream_options" in rejection.body:
            self._no_usage.add(target.provider)
            return await self._ask(fields, target, path, stream, wants_usage)
        raise rejection

    async def _whole(self, trip: "Trip", response: Response) -> bytes:
        body = await response.read(self._settings.max_answer_bytes)
        try:
            trip.usage = usage_of(body)
        except BAD_JSON:
            raise _nonsense(trip.target) from None
        return without_secrets(body, secrets_in(trip.target.headers))

    async def _stream(self, trip: "Trip", response: Response, *, drop_usage: bool) -> None:
        framer = Framer(drop_usage=drop_usage)
        request = trip.request
        send, feed = request.piece, framer.feed
        left = self._settings.max_answer_bytes
        secrets = secrets_in(trip.target.headers)
        _must_be_events(response, trip.target)
        try:
            async for piece in response:
                left -= len(piece)
                if data := feed(piece):
                    if trip.first_token is None:
                        trip.first_token = request.elapsed()
                    await send(without_secrets(data, secrets))
                if left < 0:
                    raise Unavailable("The answer grew too long and was cut.", code="upstream_too_large")
        except Unavailable:
            if not framer.finished:
                raise
        finally:
            trip.usage = framer.usage
        if not framer.finished:
            raise Unavailable(
                f"The model server `{trip.target.provider}` broke off in the middle of its answer.",
                code="upstream_broke",
            )
        if framer.rest:
            await send(without_secrets(framer.rest, secrets) + b"\n\n")
        await request.end()


class Trip:
    """What is measured of one relayed call."""

    __slots__ = ("code", "first_token", "outcome", "request", "target", "usage")

    def __init__(self, request: Request, target: Passthrough) -> None:
        self.request = request
        self.target = target
        self.outcome: Literal["ok", "cancelled", "error"] = "ok"
        self.code = ""
        self.first_token: float | None = None
        self.usage: Usage | None = None

    def failed(self, code: str) -> None:
        self.outcome = "error"
        self.code = code

    def call(self) -> Call:
        target, request = self.target, self.request
        operation: Literal["chat", "embed"] = "embed" if request.asgi["path"].endswith("/embeddings") else "chat"
        return Call(
            target.provider,
            target.model,
            operation,
            self.outcome,
            self.code,
            request.elapsed(),
            self.first_token,
            self.usage,
            request.owner.tenant,
        )


@lru_cache(maxsize=64)
def _typed(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return (*headers, (b"content-type", b"application/json"))


def _with_type(headers: Any) -> tuple[tuple[bytes, bytes], ...]:
    return _typed(tuple(headers))


def _asking_usage(fields: Fields) -> Fields:
    """With usage asked for, beside whatever else `stream_options` says."""
    options = fields.get("stream_options")
    merged = ASK_USAGE
    if options is not None and bytes(options) != b"null":
        with suppress(*BAD_JSON):
            asked = msgspec.json.decode(options, type=Fields)
            merged = msgspec.Raw(_encode({**asked, "include_usage": True}))
    return {**fields, "stream_options": merged}


def _must_be_events(response: Response, target: Passthrough) -> None:
    for name, value in response.headers:
        if name == b"content-type" and b"event-stream" not in value.lower():
            raise _nonsense(target)


def _nonsense(target: Passthrough) -> Unavailable:
    return Unavailable(
        f"The model server `{target.provider}` sent something that is not an answer in OpenAI's form. "
        "Check its kind and base_url.",
        code="upstream_nonsense",
    )
