"""The whole house with Celery: a server that puts in, `terrace worker --engine celery`, plain Celery, and Flower."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.brokers import RedisServer, running
from tests.faults.running import Terrace, end_all
from tests.ports import free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]


class House:
    def __init__(self, data: Path, broker: str) -> None:
        self.environment = {
            "TERRACE_JOBS__ENGINE": "celery",
            "TERRACE_JOBS__BROKER": broker,
            "TERRACE_JOBS__CPU_SLOTS": "1",
            "TERRACE_JOBS__LEASE": "3",  # so long nobody publishes when who did is killed
            "TERRACE_JOBS__DRAIN": "2",
            "FLOWER_UNAUTHENTICATED_API": "true",
        }
        self.terrace = Terrace(data, self.environment)
        self._others: list[asyncio.subprocess.Process] = []

    async def celery(self, *arguments: str) -> asyncio.subprocess.Process:
        """Plain `celery -A terrace.jobs.engines.celery.app ...` with the same settings."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "celery", "-A", "terrace.jobs.engines.celery.app", *arguments),
            env=self.terrace._environment,
            start_new_session=True,
        )
        self._others.append(process)
        return process

    async def ingest(self, name: str) -> dict[str, Any]:
        """A document put in, and its job once it has ended."""
        async with self.terrace.client() as client:
            files = {"file": (name, f"The lighthouse of {name} was lit in 1867.".encode(), "text/plain")}
            put = await client.post("/api/documents/upload", files=files)
            assert put.status_code < 300, put.text
            job_id = put.json()["job_id"]
        return await until(lambda: self.terrace.get(f"/api/jobs/{job_id}"), lambda job: job["state"] == "succeeded")

    async def close(self) -> None:
        for process in self._others:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        await end_all()


async def until(ask: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not good(answer := await ask()):
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.1)
    return answer


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running(RedisServer(folder)) as broker:
        made = House(tmp_path / "data", broker.url)
        await made.terrace.start()
        yield made
        await made.close()


async def test_terrace_worker_runs_what_a_server_puts_in_and_drains_when_it_is_told(house: House) -> None:
    worker = await house.terrace.command("worker", "--engine", "celery")
    job = await house.ingest("Skerryvore")
    assert job["attempt"] == 1
    children = psutil.Process(worker.pid).children(recursive=True)
    assert len(children) >= 3, "a worker for each lane, and a child for CPU-bound jobs"
    worker.terminate()
    assert await asyncio.wait_for(worker.wait(), 60) == 0
    assert not [each for each in children if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


async def test_its_workers_are_started_again_and_go_when_it_is_killed(house: House) -> None:
    worker = await house.terrace.command("worker", "--engine", "celery")
    await house.ingest("Bell Rock")
    for each in psutil.Process(worker.pid).children():
        each.kill()
    await house.ingest("Fastnet")
    children = psutil.Process(worker.pid).children(recursive=True)
    worker.kill()
    await worker.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 60)
    assert not alive


async def test_plain_celery_runs_them_and_flower_shows_it(house: House) -> None:
    port = free_port()
    await house.celery("flower", "--address=127.0.0.1", f"--port={port}")
    await house.celery("worker", "-l", "warning", "-E")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as flower:

        async def ask(path: str) -> Any:
            try:
                answer = await flower.get(path)
            except httpx.TransportError:
                return {}
            assert answer.status_code == 200, answer.text
            return answer.json()

        workers = await until(
            lambda: ask("/api/workers?refresh=true"),
            lambda workers: any(told.get("active_queues") and told.get("registered") for told in workers.values()),
        )
        (told,) = workers.values()
        assert {queue["name"] for queue in told["active_queues"]} == {"terrace.io", "terrace.cpu"}
        assert "terrace.run" in told["registered"]
        job = await house.ingest("Eddystone")
        # It may have been sent again while the worker was starting: one message found its job.
        tasks = await until(
            lambda: ask("/api/tasks"),
            lambda tasks: any("succeeded" in (task["result"] or "") for task in tasks.values()),
        )
        task = next(task for task in tasks.values() if "succeeded" in (task["result"] or ""))
        broker = await flower.get("/broker")
        assert "terrace.io" in broker.text, "its queues"
    assert task["name"] == "terrace.run"
    assert job["id"] in task["args"]
    assert task["state"] == "SUCCESS"
