"""`kill -9` at random moments while thirty files come in and are read: nothing lost, nothing twice, nothing left."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("ingest_worker.py")
FILES = 30
ROUNDS = 6
SEED = int(os.environ.get("FAULT_SEED", random.randrange(2**32)))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def make_files(folder: Path) -> None:
    """Different lengths, so that some need several batches; every tenth can't be read."""
    folder.mkdir()
    for number in range(FILES):
        if number % 10 == 9:
            (folder / f"{number:02}.txt").write_text(" \n" * (number + 1))
            continue
        paragraphs = (
            f"Entry {part} of log {number}. " + f"The keeper of light {number} saw ship {part} pass. " * 12
            for part in range(1 + number * 4)
        )
        (folder / f"{number:02}.txt").write_text("\n\n".join(paragraphs))


def start(data: Path, files: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(data), str(files)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: "subprocess.Popen[str]") -> None:
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    assert out.endswith("done\n")


async def found(data: Path) -> dict[str, Any]:
    """What is stored after the doctor has been: documents by name, and what must agree with what."""
    sys.path.insert(0, str(WORKER.parent))
    try:
        import ingest_worker
    finally:
        sys.path.remove(str(WORKER.parent))
    async with ingest_worker.opened(data) as house:
        await house.doctor.repair(orphan_age=0)
        left = await house.doctor.examine(orphan_age=0)
        documents, _ = await house.knowledge.list(ingest_worker.SCOPE, limit=500)
        spans = 0
        for document in documents:
            if document.state == "ready":
                text = (await house.knowledge.text(ingest_worker.SCOPE, document.id)).text
                chunks, _ = await house.knowledge.chunks(ingest_worker.SCOPE, document.id, limit=500)
                assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
                assert [chunk.ordinal for chunk in chunks] == list(range(document.chunks))
                spans += len(chunks)
        return {
            "documents": {document.name: document for document in documents},
            "count": len(documents),
            "spans": spans,
            "counts": await house.knowledge.counts(ingest_worker.SCOPE),
            "blobs": [blob.key async for blob in house.blobs.list()],
            "left": left,
        }


def test_nothing_is_lost_and_nothing_twice(tmp_path: Path) -> None:
    print(f"FAULT_SEED={SEED}")
    chance = random.Random(SEED)
    files, data, control = tmp_path / "files", tmp_path / "data", tmp_path / "control"
    make_files(files)
    finish(start(control, files))

    killed = 0
    for _ in range(ROUNDS):
        process = start(data, files)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        try:
            process.wait(chance.uniform(0.0, 1.2))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    finish(start(data, files))
    assert killed >= 3, "it was too quick to be killed"

    expected, after = asyncio.run(found(control)), asyncio.run(found(data))
    assert after["left"] == []
    assert after["count"] == len(after["documents"]) == FILES
    for name, document in after["documents"].items():
        as_expected = expected["documents"][name]
        assert (document.state, document.searchable, document.chunks, document.characters) == (
            as_expected.state, as_expected.searchable, as_expected.chunks, as_expected.characters,
        )  # fmt: skip
        assert (document.state == "ready") == (document.error is None)
        if document.error is not None:
            assert document.error["code"] == "document_empty"
    failed = sum(document.state == "failed" for document in after["documents"].values())
    assert failed == FILES // 10
    assert after["spans"] == after["counts"]["chunks"] == after["counts"]["vectors"] == expected["counts"]["chunks"]
    assert len(after["blobs"]) == 2 * FILES - failed
