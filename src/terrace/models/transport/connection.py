"""A kept-alive plain http connection: httptools in front, one exchange at a time."""

import asyncio
from math import inf
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from terrace.errors import Unavailable
from terrace.models.transport.exchange import Exchange
from terrace.models.transport.outbox import Outbox

MAX_HEAD_BYTES = 64 * 1024
IDLE_EXPIRY = 4.0  # seconds; many servers (uvicorn, node) drop an idle connection after five


def broke(why: str) -> Unavailable:
    return Unavailable(f"The model server {why}.", code="upstream_broke")


class Keeper(Protocol):
    """Who keeps connections: it is told when one opens, is free again, or is lost."""

    def made(self, connection: "Connection") -> None: ...
    def free(self, connection: "Connection") -> None: ...
    def lost(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """Timeouts are two moments, `deadline` and `final`, that the pool's sweep compares with the clock: no timer is
    made for a request or a chunk."""

    __slots__ = (
        "_begun",
        "_body_seen",
        "_clock",
        "_close_delimited",
        "_complete",
        "_first_byte",
        "_framed",
        "_head_bytes",
        "_idle",
        "_keep_alive",
        "_keeper",
        "_loop",
        "_outbox",
        "_parser",
        "_reusable",
        "_transport",
        "_unparsed",
        "deadline",
        "exchange",
        "final",
        "freed_at",
        "paused",
        "touched",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: Keeper, outbox: Outbox) -> None:
        self._loop = loop
        self._outbox = outbox
        self._clock = loop.time
        self._keeper = keeper
        self._transport: asyncio.Transport
        self._parser = HttpResponseParser(self)
        self.exchange: Exchange | None = None
        self.deadline = self.final = inf
        self.freed_at = 0.0
        self.paused = False
        self.touched = False  # a byte of the current answer has come
        self._keep_alive = IDLE_EXPIRY
        self._reset(0.0)

    def _reset(self, idle: float) -> None:
        self._idle = idle
        self._head_bytes = self._unparsed = 0
        self._begun = self._framed = self._close_delimited = False
        self._complete = self._body_seen = self._reusable = False

    # What the pool asks.

    def ask(
        self, method: str, data: bytes, first_byte_timeout: float, idle_timeout: float, total_timeout: float
    ) -> Exchange:
        """Sends a whole request; its `Exchange.head` resolves when the response head is in."""
        self._reset(idle_timeout)
        self.touched = False
        now = self._clock()
        self.deadline = now + first_byte_timeout
        self.final = now + total_timeout
        self.exchange = exchange = Exchange(self, method, self._loop)
        if self.is_open():
            self._outbox.write(self._transport, data)
        else:
            self._fail(broke("closed the connection before it was asked"))
        return exchange

    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def fileno(self) -> int:
        return int(self._transport.get_extra_info("socket").fileno())

    def expire(self, now: float) -> None:
        """A moment has passed: an idle connection closes, a busy one fails its exchange."""
        if self.exchange is None:
            self._transport.close()
        elif self.final <= now:
            self._fail(Unavailable("The model server did not finish in time.", code="upstream_timeout"))
        elif self._body_seen:
            self._fail(
                Unavailable(f"The model server sent nothing for {self._idle:g} seconds.", code="upstream_stalled")
            )
        else:
            self._fail(Unavailable("The model server did not begin to answer in time.", code="upstream_timeout"))

    def drop(self) -> None:
        """Nobody wants the rest: the upstream sees it at once."""
        self.exchange = None
        self._transport.abort()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self.deadline = self._clock() + self._idle
            if self.is_open():
                self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._keeper.made(self)

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:  # nobody asked: such as a 408 for an idle connection
            self._transport.abort()
            return
        self.touched = True
        if self._body_seen:
            self.deadline = self._clock() + self._idle
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail(
                broke(f"sent something that is not an HTTP response, or over {MAX_HEAD_BYTES:,} bytes of headers")
            )
            return
        if self._complete:
            self._free()
        elif not self._begun:
            self._unparsed += len(data)
            if self._unparsed > 2 * MAX_HEAD_BYTES:
                self._fail(broke(f"sent headers of more than {MAX_HEAD_BYTES:,} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self.exchange
        if exchange is not None:
            if self._close_delimited and exc is None:
                self.exchange = None
                exchange.finish()
            else:
                where = "in the middle of its answer" if self._begun else "before it answered"
                self._fail(broke(f"closed the connection {where}"))
        self._keeper.lost(self)

    # httptools

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._begun or self.exchange is None:  # trailers
            return
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("giant header")
        name = name.lower()
        if name == b"content-length":
            self._framed = True
        elif name == b"transfer-encoding":
            self._framed = b"chunked" in value.lower()
        elif name == b"keep-alive":
            self._keep_alive = _promised_keep_alive(value)
        self.exchange.headers.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        status = self._parser.get_status_code()
        if status < 200:
            exchange.headers.clear()
            self._framed = False
            return
        self._begun = True
        exchange.begin(status)
        if exchange.method == "HEAD":
            self._end()  # httptools can't be told that no body follows, so this was the connection's last answer
        else:
            self._close_delimited = not self._framed and status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if not self._body_seen:
            self._body_seen = True
            self.deadline = self._clock() + self._idle
        if exchange.push(body) and not self.paused:
            self.paused = True
            self.deadline = inf
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._begun and not self._complete:
            self._reusable = self._keep_alive > 0 and self._parser.should_keep_alive()  # later it has forgotten
            self._end()

    # Ends

    def _end(self) -> None:
        exchange, self.exchange = self.exchange, None
        self._complete = True
        if exchange is not None:
            exchange.finish()

    def _free(self) -> None:
        self.final = inf
        if self.paused:
            self.paused = False
            self._transport.resume_reading()
        if self._reusable and not self._transport.get_write_buffer_size() and self.is_open():
            self.freed_at = self._clock()
            self.deadline = self.freed_at + self._keep_alive
            self._keeper.free(self)
        else:
            self._transport.close()

    def _fail(self, error: Unavailable) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.fail(error)
        self._transport.abort()


def _promised_keep_alive(value: bytes) -> float:
    """Seconds an idle connection may be used, from `Keep-Alive: timeout=5`: a second less than promised."""
    _, found, seconds = value.partition(b"timeout=")
    digits = seconds.split(b",")[0].strip()
    return min(max(float(digits) - 1.0, 0.0), 60.0) if found and digits.isdigit() else IDLE_EXPIRY
