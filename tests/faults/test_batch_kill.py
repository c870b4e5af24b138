"""The server is killed in the middle of a batch, again and again: each request is answered once, and few are asked
twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.counting_upstream import MODEL, Counting, upstream
from tests.faults.running import Terrace, end_all

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

LINES = 300
AT_ONCE = 20
CHAT = "/v1/chat/completions"


@pytest.fixture
async def counting() -> AsyncIterator[Counting]:
    async with upstream() as each:
        yield each
    await end_all()


def request(number: int) -> str:
    body = {"model": f"counted/{MODEL}", "messages": [{"role": "user", "content": f"question {number}"}]}
    return json.dumps({"custom_id": f"id-{number}", "method": "POST", "url": CHAT, "body": body})


async def answered(terrace: Terrace, batch_id: str, count: int) -> Any:
    while True:
        batch = await terrace.get(f"/v1/batches/{batch_id}")
        if batch["status"] in ("completed", "failed") or count <= batch["request_counts"]["completed"] < LINES:
            return batch
        await asyncio.sleep(0.01)


async def test_each_request_has_one_answer_whatever_is_killed(tmp_path: Path, counting: Counting) -> None:
    name = "TERRACE_MODELS__PROVIDERS__COUNTED__"
    environment = {f"{name}KIND": "openai", f"{name}BASE_URL": counting.url, f"{name}MODELS": f'["{MODEL}"]'}
    terrace = Terrace(tmp_path, environment | {"TERRACE_BATCHES__CONCURRENCY": str(AT_ONCE)})
    await terrace.start()
    async with terrace.client() as client:
        content = "\n".join(map(request, range(LINES)))
        file = await client.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"})
        wanted = {"input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h"}
        batch = (await client.post("/v1/batches", json=wanted)).json()
    kills = (60, 140, 141, 250)
    for count in kills:
        counting.most = count + AT_ONCE  # in the middle it stays until it is killed
        seen = await answered(terrace, batch["id"], count)
        await terrace.kill()
        assert seen["status"] == "in_progress", "it was to be killed in the middle"
        await terrace.start()
    counting.most = LINES
    async with asyncio.timeout(120):
        batch = await answered(terrace, batch["id"], LINES)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert batch["error_file_id"] is None
    async with terrace.client() as client:
        content = (await client.get(f"/v1/files/{batch['output_file_id']}/content")).text
    answers = {each["custom_id"]: each["response"]["body"] for each in map(json.loads, content.splitlines())}
    assert len(content.splitlines()) == LINES
    for number in range(LINES):
        assert answers[f"id-{number}"]["choices"][0]["message"]["content"] == f"answer to question {number}"
    assert len(counting.asked) == LINES
    repeated = sum(counting.asked.values()) - LINES
    assert repeated <= AT_ONCE * len(kills)
    code, _ = await terrace.doctor()
    assert code == 0
    assert await terrace.terminate() == 0
