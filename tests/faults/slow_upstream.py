"""An OpenAI-compatible server that takes its time; no two of its answers have a word in common."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MODEL = "slow"


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class Upstream:
    def __init__(self, words: int, pause: float) -> None:
        self._words = words
        self._pause = pause
        self._answers = itertools.count()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
            await reader.readexactly(length)
            kind = b"application/json" if head.startswith("get") else b"text/event-stream"
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: " + kind + b"\r\n\r\n")
            if head.startswith("get"):
                writer.write(json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())
            else:
                await self._stream(writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the server was killed, as it should be
        finally:
            writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        number = next(self._answers)
        for word in range(self._words):
            writer.write(_chunk({"content": f"word{word}-{number} "}))
            await writer.drain()
            await asyncio.sleep(self._pause)
        writer.write(_chunk({}, "stop") + b"data: [DONE]\n\n")


@asynccontextmanager
async def upstream(words: int = 120, pause: float = 0.01) -> AsyncIterator[Upstream]:
    slow = Upstream(words, pause)
    server = await asyncio.start_server(slow.answer, "127.0.0.1", 0)
    slow.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield slow
