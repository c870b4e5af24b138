"""A campaign of 10,000 contacts while people chat: `python -m benchmarks.campaign [--contacts 10000]`.

`terrace serve` with full durability, a fake upstream that answers after 50 ms, and somebody who asks one question after
another. Reference, in the same run: the same somebody while nothing else goes on; and the same number of calls of the
upstream made by a bare loop of as many at a time, which is the most any campaign could write.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlmodel import Session

from benchmarks.gateway_load import closed_loop, request_bytes
from benchmarks.start import cpu_seconds, memory_mb
from benchmarks.upstream import END, LAST, MODEL, STREAM_HEAD, TOKEN, USAGE_EVENT, Upstream
from terrace.campaigns.contacts import store as contacts
from terrace.settings import Settings
from terrace.storage import open_database
from terrace.types import Scope

DELAY = 0.05  # seconds of the upstream
TOKENS = 8
ANSWER = STREAM_HEAD + TOKEN * TOKENS + LAST + USAGE_EVENT + END
PROBES = 150
BODY = "Write two friendly sentences to {{contact.name}}, who bought {{contact.item}}."


class Slow(Upstream):
    """The whole answer after DELAY."""

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/models"):
            super().on_message_complete()
            return
        self._url = self._body = b""
        self._loop.call_later(DELAY, self._transport.write, ANSWER)


async def serve_upstream() -> None:
    server = await asyncio.get_running_loop().create_server(Slow, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[Any]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    try:
        yield started
    finally:
        started.terminate()
        await started.wait()


async def furnish(data: Path, count: int) -> None:
    """Contacts in a list called Clients."""
    database = await open_database(Settings(data=data))
    scope = Scope()

    def some(session: Session, first: int, last: int) -> None:
        found = contacts.ensure_list(session, scope, "Clients")
        for number in range(first, last):
            key = f"person{number}@example.org"
            row = contacts.add(session, scope, key, f"Person {number}", key, {"item": f"item {number}"})
            contacts.set_lists(session, scope, row.id, [found.id])

    for first in range(0, count, 1000):
        await database.write(some, first, min(first + 1000, count))
    await database.close()


class Client:
    """One request after another on connections of their own; costs little."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def _sent(self, method: str, path: str, body: Any, accept: str) -> tuple[asyncio.StreamReader, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        content = b"" if body is None else json.dumps(body).encode()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\naccept: {accept}\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode()
            + content
        )
        return reader, writer

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        reader, writer = await self._sent(method, path, body, "application/json")
        answer = await reader.read()
        writer.close()
        head, _, content = answer.partition(b"\r\n\r\n")
        assert head.split()[1].startswith(b"2"), answer[:500]
        return json.loads(content)

    async def first_token(self) -> float:
        """Seconds from a question to the first of its answer."""
        begun = time.perf_counter()
        body = {"message": "How are you?", "stream": True, "use_rag": False}
        reader, writer = await self._sent("POST", "/api/chat", body, "text/event-stream")
        async for line in reader:
            if line.startswith(b"event: text"):
                break
        took = time.perf_counter() - begun
        await reader.read()
        writer.close()
        return took


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


async def chatting(client: Client, until: asyncio.Event) -> list[float]:
    took = []
    while not until.is_set():
        took.append(await client.first_token())
        await asyncio.sleep(0.02)
    return took


async def run(count: int, concurrency: int) -> list[tuple[str, str, str]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await furnish(folder, count)
        upstream = await stack.enter_async_context(process("-m", "benchmarks.campaign", "--upstream"))
        upstream_port = int(await upstream.stdout.readline())
        server = await stack.enter_async_context(
            process(
                "-m", "terrace", "serve",
                TERRACE_DATA=str(folder), TERRACE_PORT="0", TERRACE_MODELS__DISCOVER="false",
                TERRACE_KNOWLEDGE__EMBEDDING__MODEL="none", TERRACE_MODELS__DEFAULT=f"slow/{MODEL}",
                TERRACE_MODELS__PROVIDERS__SLOW__KIND="openai",
                TERRACE_MODELS__PROVIDERS__SLOW__BASE_URL=f"http://127.0.0.1:{upstream_port}/v1",
            )
        )  # fmt: skip
        ready = (await server.stdout.readline()).decode()
        client = Client(int(ready.split("ready at ")[1].split()[0].rstrip("/").rpartition(":")[2]))
        request = request_bytes("/v1/chat/completions", b'{"stream": true}')
        limit = await closed_loop(upstream_port, request, concurrency=concurrency, requests=min(count, 5000))
        most = min(count, 5000) / limit
        [await client.first_token() for _ in range(20)]  # warm
        idle = [await client.first_token() for _ in range(PROBES)]
        template = await client.json("POST", "/api/templates", {"name": "Bench", "body": BODY})
        campaign = await client.json(
            "POST", "/api/campaigns",
            {"list_id": "Clients", "template_id": template["id"], "concurrency": concurrency},
        )  # fmt: skip
        path = f"/api/campaigns/{campaign['id']}"
        over = asyncio.Event()
        before = cpu_seconds(server.pid)
        begun = time.perf_counter()
        await client.json("POST", f"{path}/start")
        chat = asyncio.create_task(chatting(client, over))
        memory: list[tuple[int, float]] = []
        while True:
            state = await client.json("GET", path)
            memory.append((state["counts"]["done"], memory_mb(server.pid)))
            if state["state"] == "finished":
                break
            await asyncio.sleep(0.25)
        seconds, cpu = time.perf_counter() - begun, cpu_seconds(server.pid) - before
        over.set()
        busy = await chat
        counts = state["counts"]
        assert counts["done"] == counts["total"] == count, counts
    early = next(mb for done, mb in memory if done >= count * 0.2)
    return [
        ("messages a second", f"{count / seconds:,.0f}", ">= 400"),
        ("the same calls by a bare loop", f"{most:,.0f}/s", "reference"),
        ("CPU a message, the chats included", f"{cpu / count * 1000:.2f} ms", ""),
        ("memory at a fifth, and at the end", f"{early:.0f} MB, {memory[-1][1]:.0f} MB", "flat"),
        ("chat's first token p95, idle", f"{p95(idle) * 1000:.0f} ms", "reference"),
        (f"and meanwhile ({len(busy)} questions)", f"{p95(busy) * 1000:.0f} ms", ""),
        ("ratio", f"{p95(busy) / p95(idle):.2f}", "<= 1.5"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contacts", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    import uvloop

    if given.upstream:
        uvloop.run(serve_upstream())
        return
    rows = uvloop.run(run(given.contacts, given.concurrency))
    for what, measured, budget in rows:
        print(f"{what:36} {measured:>18}   {budget}")


if __name__ == "__main__":
    main()
