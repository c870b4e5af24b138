"""Raw sockets against our HTTP/1.1."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from terrace.settings import Settings
from terrace.web import protocol
from terrace.web.server import Serving, bind, serve

BEGIN = re.compile(rb"HTTP/1\.1 \d{3} ")
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOST = b"POST /x HTTP/1.1\r\nHost: localhost\r\n"

App = Callable[[Any, Any, Any], Awaitable[None]]


class Server:
    def __init__(self, port: int, stop: asyncio.Event, serving: "asyncio.Task[None]") -> None:
        self.port = port
        self.stop = stop
        self.serving = serving
        self.url = f"http://127.0.0.1:{port}"

    async def connect(self) -> "Wire":
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))

    async def say(self, request: bytes) -> bytes:
        """All that comes back until the server hangs up."""
        wire = await self.connect()
        wire.send(request)
        answer = await wire.rest()
        await wire.close()
        return answer


class Wire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(20):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return int(line.split()[1]), headers, body

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(20):
            return await self._reader.readexactly(count)

    async def rest(self) -> bytes:
        async with asyncio.timeout(20):
            return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    def reset(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def served(app: App, grace: float = 2.0) -> AsyncIterator[Server]:
    settings = Settings(host="127.0.0.1", port=0, web={"shutdown_grace": grace})
    listener = bind(settings)
    stop, started = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve(app, listener, settings, started=started.set, stop=stop))
    await started.wait()
    yield Server(listener.getsockname()[1], stop, serving)
    stop.set()
    await serving
    listener.close()


async def body_of(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body += message["body"]
        if not message["more_body"]:
            return body


async def answer(send: Any, body: bytes, status: int = 200, headers: Any = ()) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def echo(asgi: Any, receive: Any, send: Any) -> None:
    """What came in, as JSON."""
    body = await body_of(receive)
    seen = {
        "method": asgi["method"],
        "path": asgi["path"],
        "query": asgi["query_string"].decode(),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in asgi["headers"]],
        "client": asgi["client"][0],
        "length": len(body),
        "body": body[:100].decode("latin-1"),
    }
    await answer(send, json.dumps(seen).encode())


def problem_in(answer: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the problem document of the last answer, which closes the connection."""
    head, _, body = answer[[each.start() for each in BEGIN.finditer(answer)][-1] :].partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    said = json.loads(body)
    status = int(head.split()[1])
    assert said["status"] == status
    assert said["request_id"] in head.decode()
    return status, said


class Clock:
    """A loop whose time stands still until it is moved; everything else is the real one's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        self.ahead = 0.0

    def time(self) -> float:
        return self._begun + self.ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@asynccontextmanager
async def timed(app: App, most: int = 100) -> AsyncIterator[tuple[Server, Serving, Clock]]:
    clock = Clock()
    serving = Serving(app, clock, most=most)  # type: ignore[arg-type]
    listening = await asyncio.get_running_loop().create_server(lambda: protocol.Connection(serving), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield Server(port, asyncio.Event(), asyncio.ensure_future(asyncio.sleep(0))), serving, clock
    listening.close()
    await serving.close(1.0)


async def connected(serving: Serving, deadline: float | None = None) -> None:
    """By one client, of whom so much has come that it is waited for until then."""
    async with asyncio.timeout(20):
        while not any(deadline in (None, each.deadline) for each in serving.connections):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
