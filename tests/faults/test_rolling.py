"""Three API processes behind nginx are restarted one after the other, under load.

Two hundred answers are being streamed: a hundred and fifty that are jobs, whose events go on at another process, and
fifty straight through /v1, which can't be resumed and are finished where they began; as one of these ends, another
begins. Others ask all the while.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.faults.slow_upstream import MODEL, Upstream, _chunk, upstream
from tests.ports import free_port

pytestmark = pytest.mark.faults

CONF = Path(__file__).parents[2] / "deploy" / "compose" / "nginx" / "nginx.conf"
RESUMABLE, STRAIGHT = 150, 50
SHORT = 16, 0.25  # words, and seconds between two: what is finished where it began takes 4 s
WORD = re.compile(r"word(\d+)-(\d+) ")
Words = list[tuple[str, str]]


class Endless(Upstream):
    """Writes until the restarts are `over`, however long they take."""

    def __init__(self) -> None:
        super().__init__(words=0, pause=0.5)
        self.over = asyncio.Event()
        self.written: dict[str, int] = {}  # by answer: how many words

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        number, word = next(self._answers), 0
        while not self.over.is_set():
            writer.write(_chunk({"content": f"word{word}-{number} "}))
            await writer.drain()
            word += 1
            await asyncio.sleep(self._pause)
        self.written[str(number)] = word
        writer.write(_chunk({}, "stop") + b"data: [DONE]\n\n")


@asynccontextmanager
async def endless() -> AsyncIterator[Endless]:
    slow = Endless()
    server = await asyncio.start_server(slow.answer, "127.0.0.1", 0)
    slow.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield slow


class Process:
    """`terrace serve` in a role, on a port of its own that it has again after a restart."""

    def __init__(self, role: str, environment: dict[str, str]) -> None:
        self.role = role
        self.port = free_port()
        self._environment = {**environment, "TERRACE_PORT": str(self.port), "TERRACE_ROLE": role}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "terrace", "serve", env=self._environment, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 120)
        assert b"ready at" in line, line

    async def restart(self) -> None:
        assert await self.stop() == 0, "it ended by itself, and well"
        await self.start()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """Its exit code, however it ended; 0 when it was never begun."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self._process.wait(), 60)
        except TimeoutError:
            self._process.kill()
            raise


@asynccontextmanager
async def nginx(folder: Path, ports: list[int]) -> AsyncIterator[str]:
    """With the configuration that is shipped; names that only Docker knows become addresses."""
    port = free_port()
    servers = "\n".join(f"        server 127.0.0.1:{each} max_fails=1 fail_timeout=2s;" for each in ports)
    conf = CONF.read_text()
    conf, replaced = re.subn(r" *server api:8000 resolve [^;]*;", servers, conf)
    assert replaced == 1
    for pattern, put in (
        (r" *resolver [^;]*;", ""),
        (r"listen 8080", f"listen 127.0.0.1:{port}"),
        (r"/tmp/", f"{folder}/"),
        (r"/dev/std(out|err)", f"{folder}/nginx.log"),
        (r"worker_processes auto", "user root;\nworker_processes 1"),
    ):
        conf = re.sub(pattern, put, conf)
    (folder / "nginx.conf").write_text(conf)
    process = await asyncio.create_subprocess_exec(
        "nginx", "-p", str(folder), "-e", f"{folder}/early.log", "-c", "nginx.conf", "-g", "daemon off;",
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )  # fmt: skip
    async with asyncio.timeout(30):
        while not (folder / "nginx.pid").exists():
            assert process.returncode is None, (folder / "early.log").read_text()
            await asyncio.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


class Client:
    """Counts what a person would notice."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self._opened: list[asyncio.Event] = []
        self.resumed = 0
        self.later = 0  # times a busy server asked to come back
        self.unclean = 0  # streams that broke off instead of ending; they can be resumed all the same
        self.failures: Counter[str] = Counter()

    async def resumable(self) -> Words:
        """A streamed answer to its end, gone on with wherever it stops: its words."""
        body = {"message": "Tell me a long story.", "stream": True, "model": f"slow/{MODEL}", "use_rag": False}
        words, last, job, done = "", "", "", False
        opened = self._opening()
        once = {"Idempotency-Key": os.urandom(8).hex()}
        while not done:
            if not job:
                asking = self.session.post("/api/chat", json=body, headers=once)
            else:
                self.resumed += 1
                headers = {"Last-Event-ID": last} if last else {}
                asking = self.session.get(f"/api/jobs/{job}/events", headers=headers)
            try:
                async with asking as response:
                    if await self._later(response):
                        continue
                    job = job or response.headers["X-Job-Id"]
                    async for id, type, data in _events(response):
                        last = id or last
                        if type == "text":
                            words += data["text"]
                            opened.set()
                        assert type != "reset", "no worker died"
                        done = done or type == "done"
            except aiohttp.ClientPayloadError:
                self.unclean += 1
        return WORD.findall(words)

    async def straight(self, stop: asyncio.Event) -> list[Words]:
        """Streamed answers that nobody could resume, one after the other."""
        opened = self._opening()
        answers = []
        while not stop.is_set():
            answers.append(await self._straight(opened))
        return answers

    async def _straight(self, opened: asyncio.Event) -> Words:
        body = {"model": f"short/{MODEL}", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        words = ""
        async with self.session.post("/v1/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()
            async for _, _, data in _events(response):
                if data and data["choices"]:
                    words += data["choices"][0]["delta"].get("content", "")
                    opened.set()
        return WORD.findall(words)

    async def _later(self, response: aiohttp.ClientResponse) -> bool:
        """Whether a busy server said when to come back, and it is time; what it says else is a failure."""
        if response.status in (200, 201):
            return False
        if response.status == 503 and "Retry-After" in response.headers:
            self.later += 1
        else:
            self.failures[f"{response.method} {response.status}: {await response.text()}"] += 1
        await asyncio.sleep(0.5)
        return True

    def _opening(self) -> asyncio.Event:
        """To be set by a stream when its first word has come."""
        opened = asyncio.Event()
        self._opened.append(opened)
        return opened

    async def all_open(self) -> None:
        for opened in self._opened:
            await opened.wait()

    async def others(self, stop: asyncio.Event) -> int:
        """Short requests, some that write: none may fail."""
        count = 0
        while not stop.is_set():
            async with self.session.get("/api/conversations") as response:
                await self._later(response)
            async with self.session.post("/api/collections", json={"name": f"c{os.urandom(8).hex()}"}) as response:
                await self._later(response)
            count += 2
            await asyncio.sleep(0.1)
        return count


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str, Any]]:
    id, type = "", ""
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("id: "):
            id = line[4:]
        elif line.startswith("event: "):
            type = line[7:]
        elif line.startswith("data: "):
            yield id, type, None if line == "data: [DONE]" else json.loads(line[6:])
            type = ""


def _whole(words: Words, expected: int) -> bool:
    """Every word of one answer, once and in order."""
    return [int(word) for word, _ in words] == list(range(expected)) and len({answer for _, answer in words}) == 1


@pytest.mark.timeout(600)
async def test_a_rolling_restart_cuts_nobody_off(postgres_url: str, tmp_path: Path) -> None:
    async with endless() as slow, upstream(*SHORT) as short:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")},
            "TERRACE_DATA": str(tmp_path / "data"),
            "TERRACE_STORAGE__URL": postgres_url,
            "TERRACE_MODELS__DISCOVER": "false",
            "TERRACE_MODELS__PROVIDERS__SLOW__KIND": "openai",
            "TERRACE_MODELS__PROVIDERS__SLOW__BASE_URL": slow.url,
            "TERRACE_MODELS__PROVIDERS__SHORT__KIND": "openai",
            "TERRACE_MODELS__PROVIDERS__SHORT__BASE_URL": short.url,
            "TERRACE_KNOWLEDGE__EMBEDDING__MODEL": "none",
            "TERRACE_WEB__SHUTDOWN_GRACE": "40",
        }
        worker = Process("worker", environment)
        doors = [Process("api", environment) for _ in range(3)]
        folder = tmp_path / "nginx"
        folder.mkdir()
        try:
            await worker.start()
            for door in doors:
                await door.start()
            async with (
                nginx(folder, [door.port for door in doors]) as url,
                aiohttp.ClientSession(
                    url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
                ) as session,
            ):
                client = Client(session)
                stop = asyncio.Event()
                answers = []
                for number in range(RESUMABLE):
                    answers.append(asyncio.create_task(client.resumable()))
                    await asyncio.sleep(0.2 if number % 10 == 0 else 0)
                straight = [asyncio.create_task(client.straight(stop)) for _ in range(STRAIGHT)]
                asking = asyncio.create_task(client.others(stop))
                await asyncio.sleep(0)  # they begin
                await asyncio.wait_for(client.all_open(), 90)
                for door in doors:
                    await door.restart()
                stop.set()
                slow.over.set()
                told = await asyncio.gather(*answers)
                passed = await asyncio.gather(*straight)
                asked = await asking
        finally:
            for process in (*doors, worker):
                await process.stop()
    assert client.failures == Counter(), client.failures
    assert all(_whole(words, slow.written[words[0][1]]) for words in told)
    assert len({words[0][1] for words in told}) == RESUMABLE
    assert all(_whole(words, SHORT[0]) for answers in passed for words in answers)
    assert client.unclean == 0, "streams are handed over at the end of an event, not cut"
    assert client.resumed >= RESUMABLE, "the restart met them all"
    assert asked > 50


def test_the_shipped_configuration_of_nginx_is_one(tmp_path: Path) -> None:
    """As far as an nginx before 1.27.3 can tell, which knows `resolve` as part of a subscription alone."""
    conf = re.sub(r"server api:8000 resolve", "server 127.0.0.1:8000", CONF.read_text())
    conf = conf.replace("/tmp/", f"{tmp_path}/").replace("/dev/stderr", f"{tmp_path}/log")
    (tmp_path / "nginx.conf").write_text(conf)
    checked = subprocess.run(
        ["nginx", "-t", "-q", "-p", str(tmp_path), "-c", "nginx.conf", "-e", f"{tmp_path}/early.log"],
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
