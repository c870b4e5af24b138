"""One request and its answer, as ASGI sees them. What the answer becomes on the wire is decided here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terrace.web.protocol import Connection

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

log = logging.getLogger("terrace.web")

HIGH_WATER = 64 * 1024  # bytes of a body kept for an application that does not take them
UNKNOWN = -1  # no Content-Length was given
CHUNKED = -2  # Transfer-Encoding: chunked
UNTIL_CLOSE = -3  # the end of the connection is the end of the answer: HTTP/1.0
NOTHING = -4  # no body may follow: HEAD, 204, 304
FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """`receive` and `send` are ASGI's. Once the client is `gone`, what is sent goes nowhere, silently.

    Applications find it as `terrace.exchange` in their scope. With `watched` set, their task is cancelled when the
    client goes, which costs nothing as long as it stays; what is `added` goes with the answer's own headers.
    """

    __slots__ = (
        "_bare",
        "_body",
        "_connection",
        "_head",
        "_left",
        "_old",
        "_taken",
        "_waiting",
        "added",
        "begun",
        "complete",
        "expects",
        "gone",
        "keep_alive",
        "received",
        "status",
        "task",
        "watched",
    )

    def __init__(self, connection: "Connection", *, bare: bool, old: bool, keep_alive: bool) -> None:
        self._connection = connection
        self._bare = bare  # HEAD: the answer has no body
        self._old = old  # HTTP/1.0
        self.keep_alive = keep_alive
        self.status = 0  # of the answer
        self.added: tuple[tuple[bytes, bytes], ...] = ()  # headers that every answer gets, whoever writes it
        self.expects = False  # the client waits for `100 Continue`
        self.received = False  # the whole request is in
        self.begun = False  # the head of the answer is given
        self.complete = False  # the whole answer is given
        self.gone = False
        self.watched = False  # the application wants to be cancelled when the client goes
        self.task: asyncio.Task[None] | None = None
        self._body = b""
        self._taken = False  # the application has had the whole body
        self._waiting: list[asyncio.Future[None]] | None = None
        self._head = b""  # held until the first piece of the body: one write instead of two
        self._left = UNKNOWN

    async def run(self, app: ASGI, asgi: MutableMapping[str, Any]) -> None:
        """Serve the request. An application that fails before it answers is a 500, later a cut connection."""
        try:
            await app(asgi, self.receive, self.send)
        except Exception:
            log.exception("the application failed")
        finally:
            if not self.complete:
                self._break_off()
            self._connection.ended(self)

    # The connection's side.

    def feed(self, body: bytes) -> bool:
        """Takes a piece of the body; says whether the application has fallen behind."""
        if self.complete or self.gone:
            return False
        self._body = self._body + body if self._body else body
        if self._waiting is not None:
            self._wake()
        return len(self._body) > HIGH_WATER

    def end_of_request(self) -> None:
        self.received = True
        if self._waiting is not None:
            self._wake()

    def leave(self) -> None:
        """The client is gone."""
        self.gone = True
        if self.watched and self.task is not None:
            self.task.cancel()
        if self._waiting is not None:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        for each in waiting or ():
            if not each.done():
                each.set_result(None)

    # ASGI

    async def receive(self) -> Message:
        connection = self._connection
        if self.expects and not self.gone:
            self.expects = False
            connection.write(CONTINUE)
            connection.expect_body()
        while not (self.complete or self.gone):
            if not self._taken and (self._body or self.received):
                body, self._body = self._body, b""
                self._taken = self.received
                return {"type": "http.request", "body": body, "more_body": not self.received}
            connection.resume()
            await self._wait()
        return {"type": "http.disconnect"}

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = self._connection.loop.create_future()
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(waiter)
        await waiter

    async def send(self, message: Message) -> None:
        if self.gone:
            return
        if message["type"] == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
            if self._connection.full:
                await self._connection.drained()
        elif message["type"] == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"{message['type']} cannot be sent.")

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer at once, for applications that know us: what two messages to `send` do."""
        if not self.gone:
            self._begin(status, headers)
            self._send_body(body, False)

    def _begin(self, status: int, headers: Headers) -> None:
        if self.begun:
            raise RuntimeError("An answer begins once.")
        connection = self._connection
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, connection.serving.date]
        count = 2
        length = UNKNOWN
        for name, value in (*headers, *self.added):
            if name in FRAMING:  # ASGI's names are in lower case
                if name == b"transfer-encoding":
                    continue  # that is for us to say
                if name == b"connection":
                    self.keep_alive = self.keep_alive and b"close" not in value.lower()
                    continue
                length = int(value)
            lines += (name, b": ", value, b"\r\n")
            count += 1
        if self.expects:
            self.keep_alive = False  # nobody can tell whether the body still comes
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
            count += 1
        head = b"".join(lines)
        if head.count(b"\n") != count or head.count(b"\r") != count or b"\0" in head:
            raise RuntimeError("A header of the answer holds a line break.")
        self.begun = True
        self.status = status
        self._head = head
        self._left = NOTHING if self._bare or status in (204, 304) else length
        if length == UNKNOWN:
            connection.loop.call_soon(self._send_head)  # its first piece may take a while

    def _send_head(self) -> None:
        """The head alone, when nothing followed it at once."""
        if self._head and not self.gone:
            self._connection.write(self._framed(UNKNOWN))

    def _framed(self, length: int) -> bytes:
        """The whole head, once it is known how the body will be told apart from what follows."""
        head, self._head = self._head, b""
        if self._left != UNKNOWN:
            return head + b"\r\n"
        if length != UNKNOWN:
            self._left = length
            return b"%bcontent-length: %d\r\n\r\n" % (head, length)
        if self._old:
            self._left = UNTIL_CLOSE
            self.keep_alive = False
            return head + b"\r\n"
        self._left = CHUNKED
        return head + b"transfer-encoding: chunked\r\n\r\n"

    def _send_body(self, body: bytes, more: bool) -> None:
        if not self.begun or self.complete:
            raise RuntimeError("A body comes after its head and before its end.")
        head = self._framed(UNKNOWN if more else len(body)) if self._head else b""
        left = self._left
        if left >= 0:
            self._left = left - len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError(f"The body does not have the length that was given: {left - len(body)} missing.")
        elif left == CHUNKED:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        elif left == NOTHING:
            body = b""
        if head:
            body = head + body
        if body:
            self._connection.write(body)
        if not more:
            self._finish()

    def _finish(self) -> None:
        self.complete = True
        self._body = b""
        if self._waiting is not None:
            self._wake()
        self._connection.answered(self)

    def _break_off(self) -> None:
        """The application ended without an answer, or in the middle of one."""
        if self.gone:
            return
        if self.begun and not self._head:
            self._connection.abort()
            return
        self.keep_alive = self.begun = False
        self._head = b""
        self._begin(500, [(b"content-type", b"text/plain")])
        self._send_body(b"Internal server error", False)
