"""An OpenAI-compatible server that answers each question after a moment, and counts how often it was asked."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MODEL = "counting"


class Counting:
    def __init__(self, pause: float) -> None:
        self._pause = pause
        self.asked: Counter[str] = Counter()
        self.most = sys.maxsize  # so many questions are answered, in the order they came; the others wait for more
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
            body = await reader.readexactly(length)
            said = await self._said(head, body)
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(said), said))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the server was killed, as it should be
        finally:
            writer.close()

    async def _said(self, head: str, body: bytes) -> bytes:
        if head.startswith("get"):
            return json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()
        question = json.loads(body)["messages"][-1]["content"]
        self.asked[question] += 1
        place = list(self.asked).index(question)
        await asyncio.sleep(self._pause)
        while place >= self.most:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        message = {"role": "assistant", "content": f"answer to {question}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
        answer = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
        return json.dumps({**answer, "usage": usage}).encode()


@asynccontextmanager
async def upstream(pause: float = 0.05) -> AsyncIterator[Counting]:
    counting = Counting(pause)
    server = await asyncio.start_server(counting.answer, "127.0.0.1", 0)
    counting.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield counting
