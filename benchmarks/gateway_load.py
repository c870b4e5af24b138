"""A load generator that costs little: one asyncio protocol a connection, answers recognised by their ends."""

import asyncio
import re
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TOKEN = b'"content": "token "'


def request_bytes(path: str, body: bytes, key: str = "sk-benchmark") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"authorization: Bearer %b\r\nuser-agent: benchmark\r\naccept: application/json\r\n\r\n%b"
    ) % (path.encode(), len(body), key.encode(), body)


class _Connection(asyncio.Protocol):
    """One request after another; `ask` resolves to the seconds an answer took."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._waiting: asyncio.Future[float] | None = None

    def ask(self, request: bytes) -> "asyncio.Future[float]":
        self._begun = perf_counter()
        self._waiting = self._loop.create_future()
        self.transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._buffer, 0, head)
        whole = len(self._buffer) >= head + 4 + int(length[1]) if length else self._buffer.endswith(b"\r\n0\r\n\r\n")
        if whole and self._waiting is not None and not self._waiting.done():
            good = self._buffer.startswith(b"HTTP/1.1 200")
            if good:
                self._waiting.set_result(perf_counter() - self._begun)
            else:
                self._waiting.set_exception(RuntimeError(self._buffer[:300].decode("latin-1")))
            self._buffer = b""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(RuntimeError("connection lost"))


async def _connect(port: int) -> _Connection:
    return (await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", port))[1]


async def closed_loop(port: int, request: bytes, *, concurrency: int, requests: int) -> float:
    """Keeps `concurrency` requests under way until `requests` are answered; the seconds it took."""
    connections = await asyncio.gather(*(_connect(port) for _ in range(concurrency)))
    left = requests
    loop = asyncio.get_running_loop()

    async def keep_asking(connection: _Connection) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await connection.ask(request)

    began = loop.time()
    await asyncio.gather(*map(keep_asking, connections))
    took = loop.time() - began
    for connection in connections:
        connection.transport.close()
    return took


async def open_loop(port: int, request: bytes, *, rate: float, seconds: float) -> list[float]:
    """Sends `rate` requests a second whatever happens; each one's seconds."""
    loop = asyncio.get_running_loop()
    idle = [await _connect(port) for _ in range(16)]
    began = loop.time()

    async def one(at: float) -> float:
        await asyncio.sleep(max(0.0, at - loop.time()))
        connection = idle.pop() if idle else await _connect(port)
        took = await connection.ask(request)
        idle.append(connection)
        return took

    latencies = await asyncio.gather(*(one(began + index / rate) for index in range(int(rate * seconds))))
    for connection in idle:
        connection.transport.close()
    return latencies


@dataclass(slots=True)
class Streams:
    """What was seen of many streams."""

    tokens: int = 0
    opened: int = 0
    finished: int = 0
    broken: int = 0
    first: list[float] = field(default_factory=list)


class _Stream(asyncio.Protocol):
    __slots__ = ("_asked", "_begun", "_done", "_loop", "_request", "_seen", "_tail", "transport")

    def __init__(self, request: bytes, seen: Streams) -> None:
        self._request = request
        self._seen = seen
        self._begun = self._done = False
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._loop = asyncio.get_running_loop()
        self._asked = perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        seen = self._seen
        tokens = data.count(_TOKEN)
        seen.tokens += tokens
        if not self._begun and tokens:
            self._begun = True
            seen.opened += 1
            seen.first.append(perf_counter() - self._asked)
        if b"[DONE]" in data:
            self._done = True
            seen.finished += 1
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done:
            self._seen.broken += 1


async def open_streams(
    port: int, request: bytes, count: int, *, rate: float
) -> tuple[Streams, list[asyncio.Transport]]:
    """Opens `count` streams, `rate` a second, and leaves them running."""
    loop = asyncio.get_running_loop()
    seen = Streams()
    transports = []
    began = loop.time()
    for index in range(count):
        if (late := began + index / rate - loop.time()) > 0:
            await asyncio.sleep(late)
        transport, _ = await loop.create_connection(lambda: _Stream(request, seen), "127.0.0.1", port)
        transports.append(transport)
    return seen, transports
