"""`terrace serve` and `terrace worker` killed at random moments: what clients saw is stored, each thing once."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.faults.running import GONE, Stream, Terrace, end_all
from tests.faults.slow_upstream import Upstream, upstream

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]


DOCUMENTS = 12
QUESTIONS = 16
KILLS = 3


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    yield
    await end_all()


def settings(slow: Upstream, **more: str) -> dict[str, str]:
    return {
        "TERRACE_MODELS__PROVIDERS__SLOW__KIND": "openai",
        "TERRACE_MODELS__PROVIDERS__SLOW__BASE_URL": slow.url,
        "TERRACE_MODELS__DEFAULT": "slow/slow",
        **more,
    }


def contents(number: int) -> tuple[str, bytes]:
    if number == 7:
        return "broken.pdf", b"%PDF-1.4 cut off"
    paragraphs = [f"Quay {number}.{line} is {line} metres deep and ships moor there in winter." for line in range(200)]
    return f"quay{number}.txt", "\n\n".join(paragraphs).encode()


async def upload(terrace: Terrace, number: int) -> dict[str, Any]:
    """Again and again until it is answered, as a person would."""
    name, data = contents(number)
    while True:
        try:
            async with terrace.client() as client:
                answer = await client.post("/api/documents/upload", files={"file": (name, data)})
            assert answer.status_code in (200, 202), answer.text
            document: dict[str, Any] = answer.json()["document"]
            return document
        except GONE:
            await asyncio.sleep(0.1)


async def upload_all(terrace: Terrace) -> set[str]:
    ids = set()
    for number in range(DOCUMENTS):
        ids.add((await upload(terrace, number))["id"])
        await asyncio.sleep(random.uniform(0, 0.15))
    return ids


async def ask(terrace: Terrace, number: int, words: asyncio.Event | None = None) -> Stream:
    """Asked until an answer begins, followed to its end; `words` is set by the first."""
    stream = Stream(words)
    body = {"message": f"How deep is quay {number}?", "stream": True, "use_rag": number % 2 == 0}
    while not stream.job:
        with suppress(*GONE):
            async with (
                terrace.client() as client,
                client.stream("POST", "/api/chat", json=body) as response,
            ):
                assert response.status_code == 200
                stream.job = response.headers["X-Job-Id"]
                await stream.read(response)
        await asyncio.sleep(0.05)
    if "done" not in stream.types():
        await stream.follow(terrace)
    return stream


async def ask_all(terrace: Terrace, words: asyncio.Event) -> list[Stream]:
    async with asyncio.TaskGroup() as group:
        asked = []
        for number in range(QUESTIONS):
            asked.append(group.create_task(ask(terrace, number, words)))
            await asyncio.sleep(0.25)
    return [task.result() for task in asked]


async def live_through(terrace: Terrace, kill: Callable[[], Awaitable[None]]) -> tuple[set[str], list[Stream]]:
    """Uploads and questions, and a `kill` while somebody reads an answer, several times; then until all is read."""
    words, over = asyncio.Event(), asyncio.Event()

    async def killing() -> None:
        for _ in range(KILLS):
            words.clear()
            if not over.is_set():
                await words.wait()
                await asyncio.sleep(random.uniform(0, 0.5))
                await kill()

    async with asyncio.timeout(400), asyncio.TaskGroup() as group:
        documents = group.create_task(upload_all(terrace))
        group.create_task(killing())
        answers = await ask_all(terrace, words)
        over.set()
        words.set()
    await terrace.settled()
    return documents.result(), answers


async def stored_answer(terrace: Terrace, stream: Stream) -> dict[str, Any]:
    start = next(data for _, type, data in stream.events if type == "start")
    conversation = await terrace.get(f"/api/conversations/{start['conversation_id']}")
    [message] = [each for each in conversation["messages"] if each["job_id"] == stream.job]
    found: dict[str, Any] = message
    return found


async def check(terrace: Terrace, documents: set[str], answers: list[Stream]) -> None:
    for seen in answers:
        whole = Stream()
        whole.job = seen.job
        await whole.follow(terrace)
        assert seen.events == whole.events  # nothing missing, nothing twice, in order
        message = await stored_answer(terrace, seen)
        assert message["state"] == "complete", message
        assert seen.text() == message["content"]
        assert seen.types().count("done") == seen.types().count("answer") == 1
        assert len({word.partition("-")[2] for word in message["content"].split()}) == 1, "two attempts were mixed"
    listed = (await terrace.get("/api/documents?limit=200"))["items"]
    assert {each["id"] for each in listed} == documents
    assert sorted(each["name"] for each in listed) == sorted(contents(number)[0] for number in range(DOCUMENTS))
    for each in listed:
        assert each["state"] == ("failed" if each["name"] == "broken.pdf" else "ready"), each
        assert (each["error"] is not None) == (each["state"] == "failed")
    assert await terrace.doctor() == (0, "All is well.\n")


async def test_the_server_is_killed(tmp_path: Path) -> None:
    async with upstream() as slow:
        terrace = Terrace(tmp_path, settings(slow))
        await terrace.start()

        async def kill() -> None:
            await terrace.kill()
            await terrace.start()

        documents, answers = await live_through(terrace, kill)
        assert sum(stream.connections > 1 for stream in answers) > 2, "no answer was interrupted: this showed nothing"
        assert any("reset" in stream.types() for stream in answers)
        await check(terrace, documents, answers)
        first, *again = terrace.starts  # the first makes its tables and has nobody to answer
        assert min(again) < 3 * first + 5, terrace.starts
        assert await terrace.terminate() == 0


async def test_a_worker_is_killed_while_the_server_goes_on(tmp_path: Path) -> None:
    async with upstream() as slow:
        terrace = Terrace(tmp_path, settings(slow, TERRACE_JOBS__WORKERS="false"))
        await terrace.start()
        worker = await terrace.command("worker")

        async def kill() -> None:
            nonlocal worker
            worker.kill()
            await worker.wait()
            worker = await terrace.command("worker")

        documents, answers = await live_through(terrace, kill)
        assert {stream.connections for stream in answers} == {1}  # the server never went away
        assert any("reset" in stream.types() for stream in answers)
        await check(terrace, documents, answers)
        worker.terminate()
        assert await asyncio.wait_for(worker.wait(), 30) == 0
        assert await terrace.terminate() == 0


@pytest.mark.parametrize(("drain", "grace", "cut"), [("20", "20", False), ("0.3", "1", True)])
async def test_terminated_while_an_answer_streams(tmp_path: Path, drain: str, grace: str, cut: bool) -> None:
    async with upstream(words=200) as slow:
        terrace = Terrace(tmp_path, settings(slow, TERRACE_JOBS__DRAIN=drain, TERRACE_WEB__SHUTDOWN_GRACE=grace))
        await terrace.start()
        begun = asyncio.Event()
        asked = asyncio.create_task(ask(terrace, 1, begun))
        await begun.wait()
        assert await terrace.terminate() == 0
        if cut:
            await terrace.start()
        stream = await asyncio.wait_for(asked, 60)
        assert ("reset" in stream.types()) is cut
        if not cut:
            assert stream.connections == 1
            await terrace.start()
        message = await stored_answer(terrace, stream)
        assert (message["state"], message["content"]) == ("complete", stream.text())
        assert len(message["content"].split()) == 200
        assert await terrace.terminate() == 0
