"""The real `terrace` in processes of its own, and a client that goes on where a stream was cut."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

GONE = (httpx.TransportError, httpx.StreamError)

_started: list[asyncio.subprocess.Process] = []


async def end_all() -> None:
    """What a test that failed left running."""
    while _started:
        process = _started.pop()
        if process.returncode is None:
            process.kill()
            await process.wait()


class Terrace:
    """`terrace serve` on a data folder, started again as often as it is killed."""

    def __init__(self, data: Path, environment: Mapping[str, str]) -> None:
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")},
            "TERRACE_DATA": str(data),
            "TERRACE_PORT": "0",
            "TERRACE_MODELS__DISCOVER": "false",
            "TERRACE_KNOWLEDGE__EMBEDDING__MODEL": "none",
            "TERRACE_STORAGE__DURABILITY": "normal",
            "TERRACE_JOBS__LEASE": "30",  # on a busy machine hearts beat late; what the dead held is taken back at once
            "TERRACE_JOBS__HEARTBEAT": "0.5",
            "TERRACE_JOBS__MAX_CRASHES": "100",
            **environment,
        }
        self.url = ""
        self.process: asyncio.subprocess.Process | None = None
        self.starts: list[float] = []

    async def command(self, *arguments: str, **more: Any) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "terrace", *arguments, env=self._environment, **more
        )
        _started.append(process)
        return process

    async def start(self) -> None:
        started = time.monotonic()
        self.process = await self.command("serve", stdout=asyncio.subprocess.PIPE)
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode()
        assert "ready at" in line, line
        self.url = line.split("ready at ")[1].split()[0].replace("localhost", "127.0.0.1")
        self.starts.append(time.monotonic() - started)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 60)

    async def doctor(self) -> tuple[int, str]:
        process = await self.command("doctor", stdout=asyncio.subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, out.decode()

    async def settled(self) -> None:
        """Until no document is being read any more."""
        async with asyncio.timeout(60):
            while True:
                states = (await self.get("/api/status"))["document_states"]
                if not any(states.get(state) for state in ("queued", "parsing", "embedding")):
                    return
                await asyncio.sleep(0.2)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=30, verify=False)  # certificates take long to load

    async def get(self, path: str) -> Any:
        """From whichever process serves now."""
        while True:
            try:
                async with self.client() as client:
                    answer = await client.get(path)
                    assert answer.status_code == 200, answer.text
                    return answer.json()
            except GONE:
                await asyncio.sleep(0.05)


class Stream:
    """The events of one job as a client collects them over any number of connections."""

    def __init__(self, words: asyncio.Event | None = None) -> None:
        self.job = ""
        self._words = words or asyncio.Event()
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.connections = 0

    async def read(self, response: httpx.Response) -> bool:
        """Whole events until the stream ends or breaks; whether it was the end."""
        self.connections += 1
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif not line and "data" in fields:
                self.events.append((fields["id"], fields["event"], json.loads(fields["data"])))
                if fields["event"] == "text":
                    self._words.set()
                if fields["event"] == "done":
                    return True
                fields = {}
        return False

    async def follow(self, terrace: Terrace) -> None:
        """From where it stopped to the end."""
        while True:
            headers = {"Last-Event-ID": self.events[-1][0]} if self.events else {}
            try:
                async with (
                    terrace.client() as client,
                    client.stream("GET", f"/api/jobs/{self.job}/events", headers=headers) as response,
                ):
                    assert response.status_code == 200
                    if await self.read(response):
                        return
            except GONE:
                pass
            await asyncio.sleep(0.05)

    def types(self) -> list[str]:
        return [type for _, type, _ in self.events]

    def text(self) -> str:
        """What a client shows at the end."""
        text = ""
        for _, type, data in self.events:
            match type:
                case "reset":
                    text = ""
                case "text":
                    text += data["text"]
                case "answer":
                    text = data["content"]
        return text
