"""A real HTTP/1.1 server on loopback that answers what a test wrote down, and tells what it saw."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CUT = object()  # the connection is reset in the middle of the answer
HOLD = object()  # nothing more is sent until the client goes

Step = bytes | float | asyncio.Event | object


@dataclass
class Reply:
    """`body` is sent piece by piece (chunked, when there is more than one step or none says its length)."""

    body: Sequence[Step] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


def json_reply(value: object, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply([json.dumps(value).encode()], status, {"content-type": "application/json", **named})


class Upstream:
    """`replies[path]` is a list of which each request takes the next, the last one staying."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.seen: list[Seen] = []
        self.gone = asyncio.Event()  # a client left in the middle of an answer
        self.held = asyncio.Event()  # an answer has come to HOLD
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def on(self, path: str, *replies: Reply) -> None:
        self.replies[path] = list(replies)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except ConnectionError:
            self.gone.set()
        except (asyncio.CancelledError, asyncio.IncompleteReadError):
            pass  # the test, or the client, is done with us
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.seen.append(Seen(method, path, headers, json.loads(body) if body else None))
        replies = self.replies.get(path.partition("?")[0])
        if not replies:
            reply = json_reply({"error": {"message": f"nothing at {path}"}}, 404)
        else:
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return await self._say(reply, reader, writer)

    async def _say(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = [f"HTTP/1.1 {reply.status} Whatever"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join([*head, "transfer-encoding: chunked", "", ""]).encode())
        for step in reply.body:
            if step is CUT:
                await writer.drain()
                await asyncio.sleep(0.01)  # let the pieces before arrive: a reset may overtake them
                writer.transport.abort()
                return False
            if step is HOLD:
                await writer.drain()
                self.held.set()
                await reader.read(1)  # returns when the client closes its end
                self.gone.set()
                return False
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, float):
                await writer.drain()
                await asyncio.sleep(step)
            elif isinstance(step, bytes) and step:
                writer.write(b"%x\r\n%b\r\n" % (len(step), step))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True
