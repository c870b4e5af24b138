"""A mock OpenAI-compatible server that is never the bottleneck: asyncio protocol, httptools, prepared bytes.

`max_tokens` in the request says how many tokens a stream has, `interval` (seconds, ours) how far apart they come.
"""

import argparse
import asyncio
import json
import re
import ssl
from typing import cast

import httptools

MODEL = "mock"
WORDS = "The quick brown fox jumps over the lazy dog and reads a paragraph of the handbook aloud. " * 4
USAGE = {"prompt_tokens": 25, "completion_tokens": 80, "total_tokens": 105}

_STREAM = re.compile(rb'"stream":\s*true')
_TOKENS = re.compile(rb'"max_tokens":\s*(\d+)')
_INTERVAL = re.compile(rb'"interval":\s*([\d.]+)')


def _plain(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _event(data: bytes) -> bytes:
    piece = b"data: %b\n\n" % data
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _chunk(**fields: object) -> bytes:
    head = {"id": "chatcmpl-mock0123456789", "object": "chat.completion.chunk", "created": 1_700_000_000}
    return json.dumps({**head, "model": MODEL, **fields}).encode()


ANSWER = _plain(
    json.dumps(
        {
            "id": "chatcmpl-mock0123456789",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": MODEL,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": WORDS}, "logprobs": None,
                 "finish_reason": "stop"}
            ],
            "usage": USAGE,
        }
    ).encode()
)  # fmt: skip
MODELS = _plain(json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = _event(_chunk(choices=[{"index": 0, "delta": {"content": "token "}, "finish_reason": None}]))
LAST = _event(_chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
USAGE_EVENT = _event(_chunk(choices=[], usage=USAGE))
END = _event(b"[DONE]") + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = b""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        url, body = self._url, self._body
        self._url = self._body = b""
        if url.endswith(b"/models"):
            self._transport.write(MODELS)
        elif _STREAM.search(body):
            tokens, interval = _TOKENS.search(body), _INTERVAL.search(body)
            self._usage = b"include_usage" in body
            self._left = int(tokens[1]) if tokens else 20
            self._interval = float(interval[1]) if interval else 0.0
            self._transport.write(STREAM_HEAD)
            self._due = self._loop.time()
            self._next()
        else:
            self._transport.write(ANSWER)

    def _next(self) -> None:
        """One token, the next by the clock and not by when this one was late."""
        if self._left <= 0:
            self._transport.write(LAST + (USAGE_EVENT if self._usage else b"") + END)
            return
        self._left -= 1
        self._transport.write(TOKEN)
        self._due += self._interval
        self._timer = self._loop.call_at(self._due, self._next)


async def _serve(port: int, context: ssl.SSLContext | None) -> None:
    server = await asyncio.get_running_loop().create_server(
        Upstream, "127.0.0.1", port, backlog=4096, ssl=context, reuse_port=True
    )
    await server.serve_forever()


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate")
    arguments = parser.parse_args()
    context = None
    if arguments.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate)
    uvloop.run(_serve(arguments.port, context))


if __name__ == "__main__":
    main()
