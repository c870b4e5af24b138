"""The hot path: the client's bytes to an OpenAI-compatible upstream, the upstream's bytes to the client.

Only the model's name is changed on the way there, and the answer bounded where limits want it; nothing on the way back.
Each time the upstream is asked is a call of its own: let pass before, settled after, however it ends.
"""

import asyncio
import random
from contextlib import suppress
from functools import lru_cache

import msgspec

from terrace.errors import TerraceError, Unavailable
from terrace.models.leaving import arrived
from terrace.models.transport.base import Headers, Response, Transport
from terrace.settings import Models as Settings
from terrace.telemetry.calls import Demand
from terrace.web.openai.base import Limits, Passthrough
from terrace.web.openai.bounds import Asked, bounded
from terrace.web.openai.framing import Framer, usage_of
from terrace.web.openai.rejection import Rejection, read_rejection, secrets_in, without_secrets
from terrace.web.openai.request import BAD_JSON, Fields, Request
from terrace.web.openai.trip import Trip

CHAT_PATH, EMBEDDINGS_PATH = "/chat/completions", "/embeddings"
REPEATABLE = frozenset({"upstream_unreachable", "upstream_broke"})  # nothing of an answer had come
FIRST_PAUSE = 0.1  # seconds before the first repeat; doubles, with jitter
ASK_USAGE = msgspec.Raw(b'{"include_usage":true}')

_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=1024)
def _quoted(model: str) -> msgspec.Raw:
    return msgspec.Raw(_encode(model))


class Relay:
    def __init__(self, transport: Transport, settings: Settings, limits: Limits) -> None:
        self._transport = transport
        self._settings = settings
        self._limits = limits
        self._no_usage: set[str] = set()  # providers that do not know stream_options

    async def run(
        self, request: Request, fields: Fields, target: Passthrough, path: str, stream: bool, wants_usage: bool
    ) -> bool:
        """Answer from `target`; once more, after a pause, when it was away or broke off before anything was sent on.
        False when nothing was sent because it failed and models.fallback may do better."""
        asked = Asked(path, stream, wants_usage, *bounded(fields, path))
        left, pause = self._settings.retries, FIRST_PAUSE
        requests = 1
        while True:
            trip = Trip(request, target, self._demand(request, target, asked, requests))
            try:
                body = await self._call(trip, fields, asked)
            except Rejection as rejection:
                if rejection.passing and self._settings.fallback:
                    return False
                await request.answer(rejection.body, status=rejection.status, headers=rejection.headers)
                return True
            except Unavailable as error:
                if trip.first_token is not None:
                    raise
                if not left or error.code not in REPEATABLE:
                    if self._settings.fallback:
                        return False
                    raise
            else:
                if body is not None:
                    await request.answer(body)
                return True
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            left, pause, requests = left - 1, pause * 2, 0

    def _demand(self, request: Request, target: Passthrough, asked: Asked, requests: int) -> Demand:
        return Demand(
            target.provider,
            target.kind,
            target.model,
            "embed" if asked.path == EMBEDDINGS_PATH else "chat",
            request.bound,
            asked.tokens,
            requests,
        )

    async def _call(self, trip: Trip, fields: Fields, asked: Asked) -> bytes | None:
        """A whole answer, or None when it was streamed. Raises Rejection, Limited, Denied, Unavailable."""
        request, gate = trip.request, trip.target.gate
        if request.patience or self._limits.shared:
            opened = await self._limits.wait(request.owner, trip.demand, request.patience)
        else:
            opened = self._limits.begin(request.owner, trip.demand)
        trip.bound, trip.most = opened.output_tokens, opened.answer_tokens
        try:
            if not gate.try_acquire():
                await gate.acquire(request.owner)
            try:
                response = await self._ask(trip, fields, asked)
                try:
                    if not asked.stream:
                        body = _whole(trip, await response.read(self._settings.max_answer_bytes))
                    else:
                        body = None
                        await self._stream(trip, response, drop_usage=not asked.wants_usage)
                finally:
                    response.close()
            finally:
                gate.release()
            trip.outcome, trip.code = "ok", ""
        except (Rejection, TerraceError) as error:
            trip.failed(error.code, refused=isinstance(error, Rejection))
            raise
        except asyncio.CancelledError:
            trip.outcome, trip.code = "cancelled", ""
            raise
        finally:
            opened.end(trip.call())
        return body

    async def _ask(self, trip: Trip, fields: Fields, asked: Asked) -> Response:
        """The head of a good answer. Raises Rejection for any other."""
        target, settings = trip.target, self._settings
        fields["model"] = _quoted(target.model)
        asks = asked.stream and not asked.wants_usage and target.provider not in self._no_usage
        sent = _asking_usage(fields) if asks else fields
        if asked.tokens is None and trip.bound is not None:
            sent = asked.within(sent, trip.bound, target.url)
        body = _encode(sent)
        trip.sent = True
        response = await self._transport.send(
            "POST",
            target.url if asked.path == CHAT_PATH else target.url.removesuffix(CHAT_PATH) + asked.path,
            _with_type(target.headers),
            body,
            # Without a stream the first byte comes when the whole answer is written.
            first_byte_timeout=settings.first_token_timeout if asked.stream else settings.total_timeout,
            idle_timeout=settings.idle_timeout,
            total_timeout=settings.total_timeout,
        )
        if response.status == 200:
            return response
        rejection = await read_rejection(response, target)
        if asks and rejection.status in (400, 422) and b"stream_options" in rejection.body:
            self._no_usage.add(target.provider)
            return await self._ask(trip, fields, asked)
        raise rejection

    async def _stream(self, trip: Trip, response: Response, *, drop_usage: bool) -> None:
        framer = Framer(drop_usage=drop_usage)
        left_early = False
        request = trip.request
        send, feed = request.piece, framer.feed
        left = self._settings.max_answer_bytes
        secrets = secrets_in(tuple(trip.target.headers))
        _must_be_events(response, trip.target)
        try:
            async for piece in response:
                left -= len(piece)
                if data := feed(piece):
                    if trip.first_token is None:
                        trip.first_token = trip.elapsed()
                    await send(without_secrets(data, secrets))
                if left < 0:
                    raise Unavailable("The answer grew too long and was cut.", code="upstream_too_large")
        except Unavailable:
            if not framer.finished:
                raise
        except asyncio.CancelledError:
            async for piece in arrived(aiter(response)):
                feed(piece)
            left_early = True
            raise
        finally:
            trip.saw(framer, left=left_early)
        if not framer.finished:
            raise Unavailable(
                f"The model server `{trip.target.provider}` broke off in the middle of its answer.",
                code="upstream_broke",
            )
        if framer.rest:
            await send(without_secrets(framer.rest, secrets) + b"\n\n")
        await request.end()


def _whole(trip: Trip, body: bytes) -> bytes:
    """An answer that is complete, as it goes on."""
    try:
        trip.usage = usage_of(body)
    except BAD_JSON:
        raise _nonsense(trip.target) from None
    if trip.usage is None:
        trip.answered = -(-len(body) // 4)
    return without_secrets(body, secrets_in(tuple(trip.target.headers)))


@lru_cache(maxsize=64)
def _typed(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return (*headers, (b"content-type", b"application/json"))


def _with_type(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
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
