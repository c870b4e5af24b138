"""A stream cut after any number of bytes goes on where it stopped: its parts together are the stored answer."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from tests.web.conftest import Client

WORDS = [f"word{number}" for number in range(150)]


class Cutter:
    """A TCP proxy that closes each connection after a random number of the server's bytes."""

    def __init__(self, target: str, chance: random.Random) -> None:
        parts = urlsplit(target)
        self._host, self._port = parts.hostname, parts.port
        self._chance = chance
        self.cuts = 0

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_server = await asyncio.open_connection(self._host, self._port)
        sending = asyncio.create_task(self._requests(reader, to_server))
        left = self._chance.randint(1, 4000 if self.cuts else 2500)  # the whole answer is longer than the latter
        with suppress(OSError):
            while left and (data := await upstream.read(left)):
                writer.write(data)
                await writer.drain()
                left -= len(data)
        self.cuts += left == 0
        sending.cancel()
        to_server.close()
        writer.close()

    @staticmethod
    async def _requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def cutting(target: str, seed: int) -> AsyncIterator[tuple[str, Cutter]]:
    cutter = Cutter(target, random.Random(seed))
    server = await asyncio.start_server(cutter.pass_on, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", cutter


async def follow(url: str, job: str) -> list[tuple[str, str, dict[str, object]]]:
    """Events as a browser's EventSource takes them: only whole ones, then on with Last-Event-ID."""
    events: list[tuple[str, str, dict[str, object]]] = []
    while not events or events[-1][1] != "done":
        headers = {"Last-Event-ID": events[-1][0]} if events else {}
        received = b""
        with suppress(httpx.TransportError):
            async with (
                httpx.AsyncClient(base_url=url, timeout=30, verify=False) as client,
                client.stream("GET", f"/api/jobs/{job}/events", headers=headers) as response,
            ):
                async for piece in response.aiter_raw():
                    received += piece
        *blocks, _ = received.split(b"\n\n")
        for block in blocks:
            fields = dict(line.partition(": ")[::2] for line in block.decode().split("\n") if not line.startswith(":"))
            if fields:
                events.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return events


@pytest.mark.parametrize("seed", range(3))
async def test_cut_anywhere_and_taken_up_again(client: Client, seed: int) -> None:
    document = await client.upload(
        data=". ".join(f"The quay {word} is {len(word)} metres deep" for word in WORDS).encode()
    )
    await client.ready(document["id"])
    async with cutting(str(client.base_url), seed) as (url, cutter):
        body = {"message": "How deep is the quay word7?", "stream": True}
        async with client.stream("POST", "/api/chat", json=body) as response:
            job = response.headers["x-job-id"]
            whole, first, second = await asyncio.gather(
                follow(str(client.base_url), job), follow(url, job), follow(url, job)
            )
        assert cutter.cuts > 0
    assert first == whole
    assert second == whole
    text = "".join(str(data["text"]) for _, type, data in whole if type == "text")
    [answer] = [data for _, type, data in whole if type == "answer"]
    result = (await client.get(f"/api/jobs/{job}")).json()["result"]
    [message] = [
        each
        for each in (await client.get(f"/api/conversations/{result['conversation_id']}")).json()["messages"]
        if each["job_id"] == job
    ]
    assert text == answer["content"]
    assert answer["content"] == message["content"] == result["response"]
