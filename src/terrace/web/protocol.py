"""HTTP/1.1 as a server speaks it: httptools parses, this holds what comes to bounds and hands it to the application.

Half as dear as a general server on the hot path: no timer is made for a request, since one sweep compares every
connection's `deadline` with the clock; head and body of an answer are one write; headers become a dictionary once.
What is not plainly a request is refused with a problem document, and the connection closed: nothing may be read in two
ways (RFC 9112, 11.2).
"""

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from terrace.web.exchange import Exchange
from terrace.web.head import (
    HEAD_TOO_LONG,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    SLOW,
    TARGET_TOO_LONG,
    TOO_MANY,
    TOO_MANY_HEADERS,
    Refusal,
    address_of,
    check_framing,
    check_repeated,
    head_size,
    refusal_of,
    short_target,
    split_target,
)

if TYPE_CHECKING:
    from terrace.web.server import Serving

MAX_PIPELINED = 16  # requests that came before the one before them was answered
MAX_LEFT_OVER = 64 * 1024 * 1024  # bytes of a body that nobody wants, read so that the client reads its answer

HEAD_SECONDS = 15.0  # for a whole head
IDLE_SECONDS = 75.0  # between two requests
BODY_SECONDS = 30.0  # between two pieces of a body
BODY_RATE = 512  # bytes a second that a body must come with, after the first minute
BODY_GRACE = 60.0
WRITE_SECONDS = 60.0  # for a client that reads nothing of its answer
LINGER_SECONDS = 2.0
LAST_SECONDS = 1.0  # for a first request when we are about to stop

Waiting = tuple[Exchange, dict[str, Any]]
"""A request that was read before its turn, with its ASGI scope."""

ASGI_VERSION = {"version": "3.0", "spec_version": "2.3"}
BETWEEN, HEAD, BODY = 0, 1, 2
PIPELINED = Refusal(400, f"More than {MAX_PIPELINED} requests came at once.", "too_many_pipelined")


class Connection(asyncio.Protocol):
    """One client. Requests are answered in the order they came; what came too early waits."""

    __slots__ = (
        "_before", "_body_begun", "_client", "_count", "_current", "_drained", "_fed", "_fresh", "_got", "_headers",
        "_incoming", "_parser", "_paused", "_phase", "_refused", "_server", "_target", "_transport", "_unsent",
        "deadline", "full", "last", "loop", "serving",
    )  # fmt: skip

    def __init__(self, serving: "Serving") -> None:
        self.serving = serving
        self.loop = serving.loop
        self.deadline = inf
        self.full = False  # more is written than the client reads
        self.last = serving.closing  # no request after the current one
        self._transport: asyncio.Transport
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._current: Exchange | None = None  # is being answered
        self._incoming: Exchange | None = None  # is being read
        self._before: deque[Waiting] | None = None  # were read, and wait for the current one's end
        self._drained: asyncio.Future[None] | None = None
        self._refused: Refusal | None = None
        self._paused = False
        self._fresh = True  # nothing of a request has come yet
        self._phase = BETWEEN
        self._fed = self._got = self._count = self._unsent = 0
        self._body_begun = 0.0
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        serving = self.serving
        crowded = len(serving.connections) >= serving.most
        serving.connections.add(self)
        self._client = address_of(transport.get_extra_info("peername"))
        self._server = address_of(transport.get_extra_info("sockname"))
        self.deadline = self.loop.time() + HEAD_SECONDS
        if serving.closing:
            self._close()
        elif crowded:
            self._refuse(TOO_MANY)

    def data_received(self, data: bytes) -> None:
        if self.last and self._incoming is None:
            return  # after a farewell
        self._fed += len(data)
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._end_after_this()  # to another protocol, which we don't speak: the request itself is served
        except HttpParserError as error:
            self._cannot_go_on(error)
        if self._phase != BETWEEN:
            self._hold_to_bounds()

    def eof_received(self) -> None:
        """The transport closes itself: whoever sends no more reads no more."""

    def pause_writing(self) -> None:
        self.full = True
        self._unsent = self._transport.get_write_buffer_size()
        if self._phase == BETWEEN:
            self.deadline = self.loop.time() + WRITE_SECONDS

    def resume_writing(self) -> None:
        self.full = False
        if self._phase == BETWEEN:
            self._wait_for_next()
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.serving.lost(self)
        self.deadline = inf
        self.last = True
        self._parser = None  # it refers to us: a circle for the collector to find
        for exchange in (self._current, self._incoming, *(each for each, _ in self._before or ())):
            if exchange is not None:
                exchange.leave()
        self._current = self._incoming = self._before = None
        self.resume_writing()
        self.deadline = inf

    # httptools

    def on_message_begin(self) -> None:
        if self.last:
            raise ValueError("nothing more was to come")
        self._phase = HEAD
        self._fresh = False
        self.deadline = self.loop.time() + HEAD_SECONDS
        self._count = 0
        self._target = b""
        self._headers = []

    def on_url(self, target: bytes) -> None:
        self._target += target
        if len(self._target) > MAX_TARGET_BYTES:
            raise TARGET_TOO_LONG

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        if self._count > MAX_HEADERS:
            raise TOO_MANY_HEADERS
        if self._phase == HEAD:  # else a trailer: nothing that follows the body says who asks, or for what
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        assert parser is not None
        version = parser.get_http_version()
        by_name = dict(headers)
        if len(by_name) != len(headers):
            check_repeated(headers)
        if self._fed > MAX_HEAD_BYTES and head_size(self._target, headers) > MAX_HEAD_BYTES:
            raise HEAD_TOO_LONG
        if version != "1.1" or b"transfer-encoding" in by_name:
            check_framing(version, by_name)
        target = self._target
        path, raw_path, query = short_target(target) if len(target) <= 128 else split_target(target)
        method = parser.get_method().decode("ascii")
        exchange = Exchange(
            self,
            bare=method == "HEAD",
            old=version == "1.0",
            keep_alive=version == "1.1" and parser.should_keep_alive() and not self.serving.leaving,
        )
        asgi = {
            "type": "http", "asgi": ASGI_VERSION, "http_version": version, "method": method, "scheme": "http",
            "path": path, "raw_path": raw_path, "query_string": query, "root_path": "", "headers": headers,
            "client": self._client, "server": self._server, "state": {},
            "terrace.headers": by_name, "terrace.exchange": exchange,
        }  # fmt: skip
        if b"expect" in by_name:
            exchange.expects = by_name[b"expect"].lower() == b"100-continue"
        self._phase = BODY
        self._body_begun = self.loop.time()
        self._fed = self._got = 0
        self._incoming = exchange
        if self._current is None:
            self._start(exchange, asgi)
        else:
            self._line_up(exchange, asgi)

    def on_body(self, body: bytes) -> None:
        assert self._incoming is not None
        self._fed = 0
        self._got += len(body)
        if self._incoming.feed(body):
            self._pause()

    def on_message_complete(self) -> None:
        incoming, self._incoming = self._incoming, None
        self._phase = BETWEEN
        self._fed = 0
        if incoming is None:
            return
        incoming.end_of_request()
        if not incoming.keep_alive:
            self.last = True
            if incoming.complete:
                self._close()
                return
        self._wait_for_next()

    # What an exchange asks.

    def write(self, data: bytes) -> None:
        self.serving.outbox.write(self._transport, data)

    def abort(self) -> None:
        """What was written before is sent as far as it goes."""
        self.serving.outbox.flush()
        self._transport.abort()

    async def drained(self) -> None:
        """Returns when the client has read most of what was written."""
        if self._drained is None:
            self._drained = self.loop.create_future()
        await asyncio.shield(self._drained)

    def resume(self) -> None:
        if self._paused and not self._before:
            self._paused = False
            self.expect_body()
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def expect_body(self) -> None:
        """From now on it is the client who is waited for."""
        if self._phase == BODY:
            self._got = 0
            self._body_begun = self.loop.time()
            self.deadline = self._body_begun + BODY_SECONDS

    def answered(self, exchange: Exchange) -> None:
        """The whole answer is written."""
        self._current = None
        if self._incoming is exchange:  # the rest of its body is read, and thrown away, so that the answer is seen
            self.expect_body()
        elif not exchange.keep_alive:
            self._close()
        elif self._before:
            self._start(*self._before.popleft())
        elif self._refused is not None:
            self._refuse(self._refused)
        elif self.last:
            self._close()
        elif self._phase == BETWEEN:
            self._wait_for_next()
        if self._paused:
            self.resume()

    def ended(self, exchange: Exchange) -> None:
        """Its application is done."""
        if exchange.task is not None:
            self.serving.tasks.discard(exchange.task)
            exchange.task = None

    # Bounds

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        if self.full or self._transport.is_closing():
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._unsent = unsent
                self.deadline = now + WRITE_SECONDS
            else:
                self._transport.abort()
        elif self._phase == BETWEEN or (self._incoming is not None and self._incoming.complete):
            self._close()
        else:
            self._refuse_in_turn(SLOW)

    def wind_up(self) -> None:
        """No further request; what is being answered may end, and what is on its way may come: a proxy that has been
        let in takes a closed connection for a failure."""
        if self._current is None and (self._fresh or self._phase == HEAD):
            self.deadline = min(self.deadline, self.loop.time() + LAST_SECONDS)
            return
        self.last = True
        self._before = None
        if self._current is None:
            self._close()
        else:
            self._current.keep_alive = False

    def _wait_for_next(self) -> None:
        if self.full:
            self.deadline = self.loop.time() + WRITE_SECONDS
        elif self._current is not None:
            self.deadline = inf
        else:
            self.deadline = self.loop.time() + IDLE_SECONDS

    def _hold_to_bounds(self) -> None:
        """A request is half in."""
        if self._fed > MAX_HEAD_BYTES:  # of headers, trailers, or the wrapping of chunks
            self._refuse_in_turn(HEAD_TOO_LONG)
        elif self._phase == HEAD:
            pass
        elif self._incoming is not None and self._incoming.complete:
            if self._got > MAX_LEFT_OVER:
                self._close()
        elif self._paused or (self._incoming is not None and self._incoming.expects):
            self.deadline = inf  # it is us whom the body waits for
        else:
            now = self.loop.time()
            self.deadline = min(now + BODY_SECONDS, self._body_begun + BODY_GRACE + self._got / BODY_RATE)

    def _close(self) -> None:
        """Once what was written is sent."""
        self.last = True
        self._incoming = None
        self.serving.outbox.flush()
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self.loop.time() + WRITE_SECONDS
        self._transport.close()

    # Requests, one after another

    def _start(self, exchange: Exchange, asgi: dict[str, Any]) -> None:
        self._current = exchange
        serving = self.serving
        exchange.task = task = self.loop.create_task(exchange.run(serving.app, asgi))
        serving.tasks.add(task)

    def _line_up(self, exchange: Exchange, asgi: dict[str, Any]) -> None:
        if self._before is None:
            self._before = deque()
        if len(self._before) >= MAX_PIPELINED:
            raise PIPELINED
        self._before.append((exchange, asgi))
        self._pause()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _end_after_this(self) -> None:
        self.last = True
        waiting = self._before[-1][0] if self._before else self._current
        if waiting is not None:
            waiting.keep_alive = False

    # Refusals

    def _cannot_go_on(self, error: HttpParserError) -> None:
        if not (self.last and self._phase == BETWEEN):  # else it came after the request that was to be the last
            self._refuse_in_turn(refusal_of(error))

    def _refuse_in_turn(self, refusal: Refusal) -> None:
        """After the answers to what came before."""
        incoming, self._incoming = self._incoming, None
        self._phase = BETWEEN
        self.last = True
        self.deadline = inf
        if incoming is not None:
            incoming.leave()  # its body will never be whole
            if self._before and self._before[-1][0] is incoming:
                self._before.pop()
            elif incoming is self._current:
                self._current = None
                if incoming.begun:
                    self.abort()
                    return
        if self._current is None:
            self._refuse(refusal)
        else:
            self._refused = refusal

    def _refuse(self, refusal: Refusal) -> None:
        """And hang up; what the client still sends is read for a moment, or it might never see why."""
        self.last = True
        if self._transport.is_closing():
            return
        self.serving.outbox.flush()
        self._transport.write(refusal.answer(self.serving.date))
        self._transport.write_eof()
        self.deadline = self.loop.time() + LINGER_SECONDS
        if self._paused:
            self._before = None
            self.resume()
