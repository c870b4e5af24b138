"""Typed events become server-sent events here and nowhere else (WHATWG HTML, section 9.2)."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any

import msgspec
from fastapi import Request
from starlette.responses import StreamingResponse

from terrace.errors import Invalid, TerraceError
from terrace.jobs.base import EventId, JobEvent
from terrace.web import markdown

HEARTBEAT = 15.0  # seconds without an event before a comment keeps proxies and clients awake
RENDER_EVERY = 0.12  # seconds between two renderings of a growing answer
LINGER = 0.5  # seconds for what is already stored to reach its reader when the server stops
HANDOVER = 2.0  # seconds until a stream that goes on ends here: it goes on elsewhere, from its last event
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

log = logging.getLogger("terrace.web")

_encode = msgspec.json.Encoder(enc_hook=lambda value: value.isoformat()).encode


def frame(type: str, data: Any, id: EventId | None = None) -> bytes:
    """One event. JSON has no raw line breaks, so a single data line always holds it."""
    head = f"id: {id}\nevent: {type}\ndata: " if id is not None else f"event: {type}\ndata: "
    return head.encode() + _encode(data) + b"\n\n"


def position(request: Request) -> EventId | None:
    """Where the client stopped: `Last-Event-ID`, or `?after=` where headers can't be set. Raises Invalid."""
    given = request.headers.get("last-event-id") or request.query_params.get("after")
    if not given:
        return None
    attempt, _, seq = given.partition("-")
    if not (attempt.isdecimal() and seq.isdecimal() and given.isascii() and len(given) < 40):
        raise Invalid("Last-Event-ID must look like 1-42, as this server sent it.", code="bad_event_id", status=400)
    return EventId(int(attempt), int(seq))


def wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def respond(frames: AsyncIterator[bytes], drained: asyncio.Event) -> StreamingResponse:
    return StreamingResponse(_kept_awake(frames, drained), media_type="text/event-stream", headers=HEADERS)


def job_stream(events: AsyncIterator[JobEvent], drained: asyncio.Event, *, render: bool = False) -> StreamingResponse:
    return respond(_rendered(events) if render else _plain(events), drained)


async def mapped(items: AsyncIterator[Any], to_frame: Callable[[Any], bytes]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(items):  # type: ignore[type-var]
        async for item in items:
            yield to_frame(item)


def _plain(events: AsyncIterator[JobEvent]) -> AsyncIterator[bytes]:
    return mapped(events, lambda event: frame(event.type, event.data, event.id))


async def _rendered(events: AsyncIterator[JobEvent]) -> AsyncIterator[bytes]:
    """For the page: the answer so far as safe HTML, a few times a second, in `render` events without an id.

    Growing text is rendered whole (a fence opened earlier changes what follows), so the pace falls with its length.
    """
    text, numbers, due = "", frozenset[int](), 0.0
    async with contextlib.aclosing(events):  # type: ignore[type-var]
        async for event in events:
            data = event.data
            match event.type:
                case "reset":
                    text, numbers = "", frozenset()
                case "sources":
                    numbers = frozenset(source["n"] for source in data["sources"])
                case "text":
                    text += data["text"]
                case "answer":
                    data = {**data, "html": markdown.render(data["content"], cited(data["sources"]))}
            yield frame(event.type, data, event.id)
            if event.type == "text" and time.monotonic() >= due:
                started = time.monotonic()
                yield frame("render", {"html": markdown.render(text, numbers)})
                now = time.monotonic()
                due = now + max(RENDER_EVERY, 10 * (now - started))


def cited(sources: list[dict[str, Any]]) -> frozenset[int]:
    return frozenset(source["n"] for source in sources)


async def _kept_awake(frames: AsyncIterator[bytes], drained: asyncio.Event) -> AsyncIterator[bytes]:
    """The frames, with a comment whenever nothing came for a while; to their end, or to ours."""
    iterator = frames.__aiter__()
    pending: asyncio.Future[bytes] | None = None
    leaving = asyncio.ensure_future(drained.wait())
    ends = inf
    try:
        yield b": connected\n\n"
        while True:
            pending = pending or asyncio.ensure_future(iterator.__anext__())
            last = leaving.done()
            if last and time.monotonic() >= (ends := min(ends, time.monotonic() + HANDOVER)):
                return
            awaited: set[asyncio.Future[Any]] = {pending} if last else {pending, leaving}
            done, _ = await asyncio.wait(
                awaited, timeout=LINGER if last else HEARTBEAT, return_when=asyncio.FIRST_COMPLETED
            )
            if pending not in done:
                if last:
                    return
                if not done:
                    yield b": still here\n\n"
                continue
            finished, pending = pending, None
            try:
                one = finished.result()
            except StopAsyncIteration:
                return
            except TerraceError as error:  # the answer has begun; whoever comes back is told it as a problem
                log.warning("a stream ends early: %s", error)
                yield f": {' '.join(error.message.split())} Come back with Last-Event-ID.\n\n".encode()
                return
            yield one
    finally:
        leaving.cancel()
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        await iterator.aclose()  # type: ignore[attr-defined]
