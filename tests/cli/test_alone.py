"""Commands without a server: they start a private one, and leave nothing behind."""

import asyncio
import json
import signal
from pathlib import Path

from tests.cli.conftest import Run, start
from tests.faults.slow_upstream import upstream


def test_documents_are_added_and_asked_without_a_server(terrace: Run, quickly: Run, tmp_path: Path) -> None:
    (tmp_path / "quay.txt").write_text("The quay is seven metres deep.")
    data = tmp_path / "data"
    assert terrace("ingest", "quay.txt", on=data).stdout == "+ quay.txt: 1 passage, searchable by words\n"
    asked = quickly("ask", "How deep is the quay?", on=data)
    assert "seven metres" in asked.stdout
    assert asked.stderr == ""
    assert not (data / "server.json").exists()


def test_looking_at_the_queue_does_not_start_it(quickly: Run, tmp_path: Path) -> None:
    (tmp_path / "quay.txt").write_text("The quay is seven metres deep.")
    data = tmp_path / "data"
    assert "not read yet" in quickly("ingest", "quay.txt", "--no-wait", on=data).stdout
    for _ in range(2):
        [job] = json.loads(quickly("jobs", "--json", on=data).stdout)
        assert (job["state"], job["attempt"]) == ("queued", 0)


def test_a_server_that_was_killed_or_is_another_is_not_asked(quickly: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "server.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    assert quickly("models", "--json", on=data).returncode == 0


async def test_an_interrupted_answer_is_stopped(quickly: Run, tmp_path: Path) -> None:
    async with upstream(words=3000) as slow:
        model = {
            "TERRACE_MODELS__PROVIDERS__SLOW__KIND": "openai",
            "TERRACE_MODELS__PROVIDERS__SLOW__BASE_URL": slow.url,
        }
        with start(tmp_path, "ask", "Say much", "-m", "slow/slow", **model) as asking:
            assert asking.stdout is not None
            assert asking.stderr is not None
            assert (await asyncio.to_thread(asking.stdout.read, 5)) == "word0"
            asking.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(asking.wait, 60) == 130
            assert asking.stderr.read() == ""
    [job] = json.loads(quickly("jobs", "--json", on=tmp_path).stdout)
    assert job["state"] == "cancelled"
