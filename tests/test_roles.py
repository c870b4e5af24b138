"""What a process does by its role, each on the same data."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from terrace import assembly
from terrace.cli.app import EXIT
from terrace.settings import Settings
from tests.cli.conftest import invoke
from tests.web.conftest import in_folder


@pytest.fixture
def settings(migrated: Path, tmp_path: Path) -> Settings:
    (tmp_path / "terrace.db").write_bytes(migrated.read_bytes())
    return in_folder(tmp_path)


@asynccontextmanager
async def playing(settings: Settings, role: str, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    settings = settings.model_copy(update={"role": role, **given})
    serving = asyncio.create_task(assembly.serve(settings, started=started.set_result, stop=stop))
    await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    try:
        async with httpx.AsyncClient(base_url=started.result(), timeout=30, verify=False) as client:
            yield client
    finally:
        stop.set()
        await serving


async def ready(client: httpx.AsyncClient) -> dict[str, Any]:
    said: dict[str, Any] = (await client.get("/ready")).json()
    return said


async def leads(client: httpx.AsyncClient) -> bool:
    return (await ready(client))["checks"].get("clock") == "ok: this process leads"


@pytest.mark.parametrize(
    ("role", "doors", "lines"),
    [
        ("all", True, {"jobs", "clock"}),
        ("api", True, set()),
        ("worker", False, {"jobs"}),
        ("scheduler", False, {"clock"}),
    ],
)
async def test_each_role_has_its_doors_and_tells_what_it_does(
    settings: Settings, role: str, doors: bool, lines: set[str]
) -> None:
    async with playing(settings, role) as client:
        said = await ready(client)
        assert said["role"] == role
        assert said["checks"].keys() & {"jobs", "clock"} == lines
        assert said["checks"]["database"] == "ok"
        assert (await client.get("/health")).json() == {"status": "healthy"}
        assert (await client.get("/metrics")).status_code == 200
        for path in ("/api/documents", "/v1/models", "/"):
            assert (await client.get(path)).status_code == (200 if doors else 404), path


async def test_what_one_process_takes_in_another_works_off(settings: Settings) -> None:
    async with playing(settings, "api") as api:
        answer = await api.post(
            "/api/documents/upload", files={"file": ("quay.txt", b"The quay is seven metres deep.")}
        )
        job = answer.json()["job_id"]
        assert (await api.get(f"/api/jobs/{job}")).json()["state"] == "queued", "nobody works here"
        async with playing(settings, "worker"), api.stream("GET", f"/api/jobs/{job}/events") as events:
            lines = [line async for line in events.aiter_lines()]
        assert "event: done" in lines
        assert (await api.get(f"/api/jobs/{job}")).json()["state"] == "succeeded"


async def test_of_several_that_may_one_looks_at_the_clock(settings: Settings) -> None:
    async with playing(settings, "scheduler") as standing_by:
        async with asyncio.timeout(60):
            while not await leads(standing_by):  # noqa: ASYNC110 over HTTP
                await asyncio.sleep(0.02)
        async with playing(settings, "scheduler") as second, playing(settings, "all") as third:
            assert [await leads(each) for each in (standing_by, second, third)] == [True, False, False]


async def test_a_stop_is_told_before_the_door_closes(settings: Settings) -> None:
    """`/ready` says no, and whoever has not heard of it is served all the same."""
    web = settings.web.model_copy(update={"shutdown_delay": 2.0})
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(
        assembly.serve(settings.model_copy(update={"web": web}), started=started.set_result, stop=stop)
    )
    async with httpx.AsyncClient(base_url=await started, verify=False) as client:
        assert (await client.get("/ready")).status_code == 200
        stop.set()
        answer = await client.get("/ready")
        assert answer.status_code == 503
        assert answer.headers["connection"] == "close"
        assert answer.json()["checks"]["stopping"] == "takes no new requests"
        assert (await client.get("/api/documents")).status_code == 200
        await serving
        with pytest.raises(httpx.TransportError):
            await client.get("/health")


async def test_whoever_was_let_in_is_answered(settings: Settings) -> None:
    """A caller the kernel has let in, who says what they want only after the stop."""
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(assembly.serve(settings, started=started.set_result, stop=stop))
    address = httpx.URL(await started)
    callers = [await asyncio.open_connection("127.0.0.1", address.port) for _ in range(5)]
    stop.set()
    for _, writer in callers[1:]:
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    callers[0][1].write(b"GET /hea")  # and one in the middle of it
    await asyncio.sleep(0.1)
    callers[0][1].write(b"lth HTTP/1.1\r\nhost: localhost\r\n\r\n")
    for reader, writer in callers:
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 200 OK"), answer
        writer.close()
    await serving


def test_roles_are_refused_that_are_none() -> None:
    refused = invoke({}, "serve", "--role", "butler")
    assert refused.code == EXIT["invalid"]
    assert "role" in refused.err.lower()
