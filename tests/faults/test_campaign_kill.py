"""A campaign while its workers, its server and its upstream are killed at random: each contact has one message."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.faults.running import GONE, Terrace, end_all
from tests.faults.writing_upstream import MODEL, WritingUpstream

from terrace.campaigns.contacts import store as contacts
from terrace.settings import Settings
from terrace.storage import open_database
from terrace.types import Scope

pytestmark = pytest.mark.faults

PEOPLE = 2000
CONCURRENCY = 50
KILLED = ("worker", "server", "upstream") * 2
KEPT = 2.0  # seconds: an answer this old when something is killed has been kept


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    yield
    await end_all()


async def furnish(data: Path) -> None:
    database = await open_database(Settings(data=data))

    def people(session: Session, first: int) -> None:
        found = contacts.ensure_list(session, Scope(), "Clients")
        for number in range(first, first + 500):
            key = f"person{number}@example.org"
            row = contacts.add(session, Scope(), key, f"Person {number}", key, {})
            contacts.set_lists(session, Scope(), row.id, [found.id])

    for first in range(0, PEOPLE, 500):
        await database.write(people, first)
    await database.close()


async def post(terrace: Terrace, path: str, body: Any = None, **headers: str) -> Any:
    """Again and again until it is answered, as a person would."""
    while True:
        with suppress(*GONE):
            async with terrace.client() as client:
                answer = await client.post(path, json=body, headers=headers)
            assert answer.status_code < 300, answer.text
            return answer.json()
        await asyncio.sleep(0.1)


async def working(terrace: Terrace) -> asyncio.subprocess.Process:
    """A worker that has begun."""
    worker = await terrace.command("worker", stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    assert b"Working on the jobs" in await asyncio.wait_for(worker.stdout.readline(), 60)
    return worker


async def finished(terrace: Terrace, path: str) -> Any:
    """The campaign at its end. When it waits for a person, there is one."""
    while True:
        campaign = await terrace.get(path)
        if campaign["state"] == "finished" and not campaign["counts"]["failed"]:
            return campaign
        if campaign["state"] in ("finished", "paused"):
            await post(terrace, f"{path}/retry")
        await asyncio.sleep(0.3)


async def test_each_contact_has_one_message_whatever_is_killed(tmp_path: Path) -> None:
    await furnish(tmp_path)
    upstream = WritingUpstream(0.15)
    await upstream.start()
    terrace = Terrace(
        tmp_path,
        {
            "TERRACE_MODELS__PROVIDERS__SLOW__KIND": "openai",
            "TERRACE_MODELS__PROVIDERS__SLOW__BASE_URL": upstream.url,
            "TERRACE_MODELS__DEFAULT": f"slow/{MODEL}",
            "TERRACE_JOBS__BACKOFF": "0.2",
        },
    )
    await terrace.start()
    worker = await working(terrace)
    template = await post(terrace, "/api/templates", {"name": "Letter", "body": "Write to {{contact.name}}."})
    wanted = {"list_id": "Clients", "template_id": template["id"], "concurrency": CONCURRENCY}
    campaign = await post(terrace, "/api/campaigns", wanted, **{"Idempotency-Key": "once"})
    path = f"/api/campaigns/{campaign['id']}"
    kills: list[float] = []

    async def killing() -> None:
        nonlocal worker
        for victim in random.sample(KILLED, len(KILLED)):
            upstream.most = len(upstream.answered) + PEOPLE // 8  # there it stays until something is killed
            while len(upstream.answered) < upstream.most:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            kills.append(time.monotonic())
            match victim:
                case "worker":
                    worker.kill()
                    await worker.wait()
                    worker = await working(terrace)
                case "server":
                    await terrace.kill()
                    await terrace.start()
                case "upstream":
                    await upstream.kill()
                    await asyncio.sleep(random.uniform(0.1, 1.0))
                    await upstream.start()
        upstream.most = PEOPLE

    async with asyncio.timeout(240), asyncio.TaskGroup() as group:
        group.create_task(killing())
        again = await post(terrace, "/api/campaigns", wanted, **{"Idempotency-Key": "once"})
        assert again["id"] == campaign["id"]
        for _ in range(3):
            await post(terrace, f"{path}/start")
        done = await finished(terrace, path)
    assert done["counts"] == {
        "total": PEOPLE, "waiting": 0, "writing": 0, "done": PEOPLE, "failed": 0, "skipped": 0, "approved": 0,
    }  # fmt: skip
    await terrace.terminate()
    worker.terminate()
    await worker.wait()
    await upstream.kill()
    await check(tmp_path, upstream, kills)


async def check(data: Path, upstream: WritingUpstream, kills: list[float]) -> None:
    database = await open_database(Settings(data=data))
    rows = await database.read(
        lambda session: session.execute(
            text("SELECT c.name, m.text FROM campaign_messages AS m JOIN contacts AS c ON c.id = m.contact_id")
        ).all()
    )
    await database.close()
    assert sorted(row.name for row in rows) == sorted(f"Person {number}" for number in range(PEOPLE))
    for name, written in rows:
        person = int(name.split()[1])
        letter = int(written.removeprefix(f"Dear {person}, this is letter ").removesuffix("."))  # whole, of one attempt
        # What was kept is the last that was asked for: nothing is asked again once it is kept.
        assert letter == len(upstream.answered[person]) - 1 or letter == len(upstream.answered[person])
        for answered in upstream.answered[person][:-1]:
            assert any(answered - 1.0 <= kill <= answered + KEPT for kill in kills), (
                f"{name} was answered, nothing was killed near it, and the upstream was asked again"
            )
    twice = sum(len(times) > 1 for times in upstream.answered.values())
    assert twice <= len(kills) * CONCURRENCY
