"""Kill the server in mid-answer, again and again: what clients saw is what is stored, and each answer ends once."""

import asyncio
import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmodel import Session, select

from terrace import settings
from terrace.chat.base import GENERATE, Ask
from terrace.chat.service import Chat
from terrace.chat.tables import MessageRow
from terrace.jobs.base import Context, JobKind
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.tables import JobEventRow
from terrace.storage import SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.types import Scope

pytestmark = pytest.mark.faults

SCOPE = Scope("acme", "usr_ada")
SERVER = Path(__file__).with_name("chat_server.py")
QUESTIONS = 24
KILLS = 4

Line = tuple[str, int, int, str, dict[str, Any]]


class OneModel:
    """Enough of the model room to ask; the server is who answers."""

    async def resolve(self, model: str | None, scope: Scope) -> Any:
        return SimpleNamespace(id="fake/slow", model="slow", provider=SimpleNamespace(name="fake"), kind="fake")

    async def context_tokens(self, model: str | None, scope: Scope) -> int | None:
        return None

    def stream(self, request: Any) -> Any:
        raise AssertionError("this process answers nothing")


async def start(path: Path, max_crashes: int, jobs: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), str(path), str(max_crashes), *jobs,
        stdout=asyncio.subprocess.PIPE, limit=2**22,
    )  # fmt: skip


async def read(
    process: asyncio.subprocess.Process, known: frozenset[tuple[str, int, int]] = frozenset(), kill_after: int = 0
) -> list[Line]:
    """Every whole line the server printed until it is done, or dead: killed after so many new pieces of text."""
    assert process.stdout is not None
    lines: list[Line] = []
    texts = 0
    while (line := await process.stdout.readline()).endswith(b"\n"):
        lines.append(tuple(json.loads(line)))
        texts += lines[-1][3] == "text" and lines[-1][:3] not in known
        if texts == kill_after > 0 and process.returncode is None:
            process.kill()
    await process.wait()
    return lines


async def live_through(path: Path, max_crashes: int, jobs: list[str], kills: int) -> list[Line]:
    chance = random.Random(kills)
    seen: list[Line] = []
    for _ in range(kills):
        known = frozenset(line[:3] for line in seen)
        seen += await asyncio.wait_for(read(await start(path, max_crashes, jobs), known, chance.randint(5, 60)), 60)
    last = await start(path, max_crashes, jobs)
    seen += await asyncio.wait_for(read(last), 60)
    assert last.returncode == 0
    return seen


def put_together(events: list[tuple[str, dict[str, Any]]]) -> str:
    text = ""
    for type, data in events:
        match type:
            case "reset":
                text = ""
            case "text":
                text += data["text"]
            case "answer":
                text = data["content"]
    return text


async def elsewhere(context: Context) -> None:
    raise AssertionError("this process runs nothing")


async def ask(database: SQLiteDatabase) -> list[str]:
    chat = Chat(
        database, LocalJobs(database, settings.Jobs(), [JobKind(GENERATE, elsewhere)]), OneModel(), settings.Chat()
    )
    return [(await chat.ask(SCOPE, Ask(f"Question {number}?"))).job_id for number in range(QUESTIONS)]


def stored(session: Session) -> tuple[dict[str, MessageRow], dict[str, dict[tuple[int, int], tuple[str, Any]]]]:
    messages = session.exec(select(MessageRow).where(MessageRow.role == "assistant")).all()
    events: dict[str, dict[tuple[int, int], tuple[str, Any]]] = defaultdict(dict)
    for row in session.exec(select(JobEventRow)).all():
        events[row.job_id][row.attempt, row.seq] = row.type, json.loads(row.data)
    return {message.job_id or "": message for message in messages}, events


@pytest.mark.parametrize(("max_crashes", "kills"), [(50, KILLS), (1, 2)])
async def test_killed_in_mid_answer(tmp_path: Path, max_crashes: int, kills: int) -> None:
    path = tmp_path / "terrace.db"
    database = SQLiteDatabase(path, durability="normal")
    await database.write(lambda session: migrate(session.connection()))
    jobs = await ask(database)
    seen = await live_through(path, max_crashes, jobs, kills)
    messages, events = await database.read(stored)
    await database.close()

    for job_id, attempt, seq, type, data in seen:
        assert events[job_id].get((attempt, seq)) == (type, data), "a client saw what is not stored"
    crashed = 0
    for job_id in jobs:
        story = [event for _, event in sorted(events[job_id].items())]
        told = {(attempt, seq): (type, data) for job, attempt, seq, type, data in seen if job == job_id}
        message, types = messages[job_id], [type for type, _ in story]
        crashed += "reset" in types
        assert put_together([event for _, event in sorted(told.items())]) == put_together(story) == message.content
        assert types.count("done") == 1
        assert types[-1] == "done"
        assert types.count("answer") == (message.state == "complete")
        assert "[9]" not in message.content
        if message.state == "complete":
            assert len({word.rpartition("-")[2] for word in message.content.split() if "-" in word}) == 1
            assert [source["n"] for source in message.sources or []] == [1]
        else:
            assert (max_crashes, message.state) == (1, "failed")
            assert (message.error or {})["code"] == "worker_died"
    if max_crashes > 1:
        assert crashed > 0, "no answer was interrupted: the test showed nothing"
        assert {message.state for message in messages.values()} == {"complete"}
    else:
        assert {"failed"} <= {message.state for message in messages.values()}
        assert any(message.content for message in messages.values() if message.state == "failed")
