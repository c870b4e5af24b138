"""An OpenAI-compatible server that bills like the meanest provider: in full, for every request it has read."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

MODEL = "paid"
PROMPT_TOKENS = 20


class Billing:
    def __init__(self, pause: float) -> None:
        self._pause = pause
        self.url = ""
        self.calls = 0
        self.tokens = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                body = await reader.readexactly(length)
                if head.startswith("get"):
                    await self._send(writer, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
                else:
                    await self._complete(writer, json.loads(body))
        except (OSError, asyncio.IncompleteReadError):
            pass  # whoever asked was killed, or hung up
        finally:
            writer.close()

    async def _complete(self, writer: asyncio.StreamWriter, asked: dict[str, Any]) -> None:
        output = asked["max_tokens"]
        self.calls += 1
        self.tokens += PROMPT_TOKENS + output
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": output, "total_tokens": PROMPT_TOKENS + output}
        await asyncio.sleep(self._pause)
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "word " * output}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await self._send(writer, {"object": "chat.completion", "choices": [choice], "usage": usage})
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for _ in range(output):
            writer.write(_event({"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}))
            await writer.drain()
            await asyncio.sleep(self._pause / output)
        writer.write(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        writer.write(_event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        await writer.drain()
        raise asyncio.IncompleteReadError(b"", None)  # the connection ends with the stream

    async def _send(self, writer: asyncio.StreamWriter, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"object": "chat.completion.chunk", **data}).encode() + b"\n\n"


@asynccontextmanager
async def upstream(pause: float = 0.3) -> AsyncIterator[Billing]:
    billing = Billing(pause)
    server = await asyncio.start_server(billing.answer, "127.0.0.1", 0)
    billing.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield billing
