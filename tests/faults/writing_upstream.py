"""An OpenAI-compatible server that remembers whom it wrote to and when, and that can be killed and come back."""

import asyncio
import json
import re
import sys
import time
from collections import defaultdict

MODEL = "writer"
_PERSON = re.compile(rb"Person (\d+)")


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class WritingUpstream:
    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.most = sys.maxsize  # so many are answered; the others wait for more
        self.answered: dict[int, list[float]] = defaultdict(list)  # person -> when they were written to, whole

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def start(self) -> None:
        """On the port it had before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Whatever is being answered is cut."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
            body = await reader.readexactly(length)
            kind = b"application/json" if head.startswith("get") else b"text/event-stream"
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: " + kind + b"\r\n\r\n")
            if head.startswith("get"):
                writer.write(json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())
                await writer.drain()
                return
            person = int(_PERSON.search(body)[1])  # type: ignore[index]
            writer.write(_chunk({"content": f"Dear {person}, "}))
            await writer.drain()
            await asyncio.sleep(self._delay)
            while len(self.answered) >= self.most:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            if reader.at_eof():
                return  # who asked was killed meanwhile
            number = len(self.answered[person])
            writer.write(_chunk({"content": f"this is letter {number}."}) + _chunk({}, "stop") + b"data: [DONE]\n\n")
            await writer.drain()
            self.answered[person].append(time.monotonic())
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side was killed, as it should be
        finally:
            self._writers.discard(writer)
            writer.close()
