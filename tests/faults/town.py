"""Processes of every role on one PostgreSQL, people who ask at any of its doors until they are answered, and the count
of what came of it."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
from tests.faults.running import GONE, Stream
from tests.faults.slow_upstream import MODEL, Upstream
from tests.faults.test_rolling import Process

ASKED = "SELECT count(*), count(DISTINCT content) FROM messages WHERE role = 'user'"
ANSWERED = "SELECT job_id, content FROM messages WHERE role = 'assistant' AND state = 'complete'"
ENDED = "SELECT state, count(*) FROM jobs WHERE kind = 'chat.generate' GROUP BY state"


class Town:
    def __init__(self, data: Path, url: str, slow: Upstream, **settings: str) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")},
            "TERRACE_DATA": str(data),
            "TERRACE_STORAGE__URL": url,
            "TERRACE_MODELS__DISCOVER": "false",
            "TERRACE_MODELS__PROVIDERS__SLOW__KIND": "openai",
            "TERRACE_MODELS__PROVIDERS__SLOW__BASE_URL": slow.url,
            "TERRACE_MODELS__DEFAULT": f"slow/{MODEL}",
            "TERRACE_KNOWLEDGE__EMBEDDING__MODEL": "none",
            "TERRACE_JOBS__MAX_CRASHES": "100",
            **settings,
        }
        self.doors: list[Process] = []
        self.others: list[Process] = []
        self.refused: Counter[str] = Counter()  # how often somebody was asked to come back, by the code
        self.failed: Counter[str] = Counter()  # answers that ended unwritten and were asked for again, by the code
        self.slowest = 0.0  # seconds until anything was answered

    @property
    def processes(self) -> list[Process]:
        return [*self.others, *self.doors]

    @property
    def told(self) -> str:
        return (
            f"asked to come back: {dict(self.refused)}; asked for again: {dict(self.failed)}; "
            f"slowest to answer {self.slowest:.1f} s"
        )

    async def open(self, *roles: str, **settings: str) -> list[Process]:
        """One process of each role named; those of the role `api` are asked."""
        opened = [Process(role, {**self.environment, **settings}) for role in roles]
        for process in opened:
            (self.doors if process.role == "api" else self.others).append(process)
        await asyncio.gather(*(process.start() for process in opened))
        return opened

    async def ask(self, number: int) -> Stream:
        """Asked until it is taken, with a key, so as one question; followed to its end, from wherever it broke off; and
        asked for again when it ends unwritten because the database could not be reached."""
        stream = Stream()
        while not stream.events or stream.events[-1][1] != "done":
            try:
                async with self.client() as client:
                    await self._follow(client, stream, number)
                    if stream.events and (error := stream.events[-1][2].get("error")):
                        again = await client.post(f"/api/jobs/{stream.job}/retry")
                        if await self._taken(again):
                            self.failed[error["code"]] += 1
                            stream.events.append((stream.events[-1][0], "retried", {}))
            except GONE:
                pass
            await asyncio.sleep(random.uniform(0.05, 0.2))
        return stream

    async def _follow(self, client: httpx.AsyncClient, stream: Stream, number: int) -> None:
        began = time.monotonic()
        if stream.job:
            at = {"Last-Event-ID": stream.events[-1][0]} if stream.events else {}
            asking = client.stream("GET", f"/api/jobs/{stream.job}/events", headers=at)
        else:
            body = {"message": f"How deep is quay {number}?", "stream": True, "use_rag": False}
            asking = client.stream("POST", "/api/chat", json=body, headers={"Idempotency-Key": f"question {number}"})
        async with asking as response:
            self.slowest = max(self.slowest, time.monotonic() - began)
            if await self._taken(response):
                stream.job = stream.job or response.headers["X-Job-Id"]
                await stream.read(response)

    async def _taken(self, response: httpx.Response) -> bool:
        if response.status_code == 503:
            self.refused[(await response.aread() and response.json())["code"]] += 1
            return False
        assert response.status_code == 200, await response.aread()
        return True

    def client(self) -> httpx.AsyncClient:
        """At any door."""
        port = random.choice(self.doors).port
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, verify=False)

    async def ready(self, *, says: int = 200, within: float = 60) -> float:
        """Until every door says so at /ready; in seconds."""
        began = time.monotonic()
        async with asyncio.timeout(within):
            for door in self.doors:
                while await self._said(door) != says:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def _said(self, door: Process) -> int:
        try:
            async with httpx.AsyncClient(timeout=60, verify=False) as client:
                return (await client.get(f"http://127.0.0.1:{door.port}/ready")).status_code
        except GONE:
            return 0


@asynccontextmanager
async def town(data: Path, url: str, slow: Upstream, **settings: str) -> AsyncIterator[Town]:
    """At the end all of it must end by itself, and well."""
    made = Town(data, url, slow, **settings)
    try:
        yield made
        codes = [await process.stop() for process in made.processes]
        assert not any(codes), codes
    finally:
        for process in made.processes:
            await process.stop()


def nothing_lost_nothing_twice(url: str, streams: Iterable[Stream]) -> None:
    seen = {stream.job: stream.text() for stream in streams}
    with psycopg.connect(url) as connection:
        asked = connection.execute(ASKED).fetchone()
        answered = connection.execute(ANSWERED).fetchall()
        ended = connection.execute(ENDED).fetchall()
    assert asked == (len(seen), len(seen)), f"each question was asked once: {asked}"
    assert ended == [("succeeded", len(seen))], ended
    assert len(answered) == len(seen), len(answered)
    assert dict(answered) == seen, "what people saw in the end is what is kept"
    for text in seen.values():
        words = [word.removeprefix("word").split("-") for word in text.split()]
        assert [int(place) for place, _ in words] == list(range(len(words))), "every word once, in order"
        assert len({answer for _, answer in words}) == 1, "of one answer"
