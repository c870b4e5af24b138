"""No room left: an upload is refused with a sentence, nothing half-done stays, and the server goes on."""

import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.running import Terrace, end_all

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")]

TEXT = b"The quay is seven metres deep. "
BIG = TEXT * 80_000


class Tight(Terrace):
    """A server whose files can be forbidden to grow past a size."""

    def allow(self, size: int = resource.RLIM_INFINITY) -> None:
        assert self.process is not None
        hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    async def upload(self, name: str, data: bytes) -> Any:
        async with self.client() as client:
            return await client.post("/api/documents/upload", files={"file": (name, data)})

    async def names(self) -> list[str]:
        return [each["name"] for each in (await self.get("/api/documents"))["items"]]


@pytest.fixture
async def terrace(tmp_path: Path) -> AsyncIterator[Tight]:
    terrace = Tight(tmp_path, {"TERRACE_JOBS__BACKOFF": "0.2", "TERRACE_JOBS__MAX_FAILURES": "100"})
    await terrace.start()
    yield terrace
    terrace.allow()
    assert await terrace.terminate() == 0
    await end_all()


def kept(data: Path) -> set[Path]:
    return {path for path in (data / "blobs").rglob("*") if path.is_file()}


# Files no larger than what keeps the upload's row from being written; or its bytes.
TIGHT = [(1000, "small.txt", TEXT * 10), (2_000_000, "big.txt", BIG)]


async def test_an_upload_without_room(terrace: Tight, tmp_path: Path) -> None:
    assert (await terrace.upload("first.txt", TEXT)).status_code == 202
    there = ["first.txt"]
    for room, name, data in TIGHT:
        await terrace.settled()
        before = kept(tmp_path)
        terrace.allow(room)
        for _ in range(2):
            refused = await terrace.upload(name, data)
            problem = refused.json()
            assert (refused.status_code, problem["code"]) == (503, "disk_full"), problem
            assert "disk is full" in problem["detail"]
            assert kept(tmp_path) == before
        assert (await terrace.get("/health"))["status"] == "healthy"
        assert sorted(await terrace.names()) == sorted(there)

        terrace.allow()
        assert (await terrace.upload(name, data)).status_code == 202
        there.append(name)
        assert sorted(await terrace.names()) == sorted(there)
    await terrace.settled()
    assert {each["state"] for each in (await terrace.get("/api/documents"))["items"]} == {"ready"}
    assert await terrace.doctor() == (0, "All is well.\n")
