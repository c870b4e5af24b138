"""The process that delivers is killed again and again: every event arrives, with its one id, and the log agrees."""

import asyncio
import random
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.models.transport_server import Peer, plain
from tests.webhooks.conftest import Room, Rooms, eventually
from tests.webhooks.receiver import OK, Received, receiving

from terrace.jobs.base import JobKind
from terrace.storage import SQLiteDatabase
from terrace.types import Scope

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

WORKER = Path(__file__).parent / "webhook_worker.py"
EVENTS = 200
KILLS = 4


@pytest.fixture
async def rooms(database: SQLiteDatabase):
    rooms = Rooms(database)
    yield rooms
    for room in rooms.opened:
        await room.close()


async def started(database: SQLiteDatabase) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), str(database.path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"ready\n"
    return process


async def moody(peer: Peer, received: Received) -> None:
    """Slow, at times broken, at times gone without a word: as receivers are."""
    await asyncio.sleep(random.uniform(0.01, 0.1))
    mood = random.random()
    if mood < 0.8:
        await peer.write(OK)
    elif mood < 0.9:
        await peer.write(plain(b"", b"500 Oops"))


async def test_every_event_arrives_with_its_one_id(rooms: Rooms, database: SQLiteDatabase, scope: Scope) -> None:
    room = await rooms.open(work=False)
    room.jobs.register(JobKind("work", _never))
    async with receiving(moody) as receiver:
        endpoint, secret = await room.add(scope, receiver.url)
        payloads = [{"number": number} for number in range(EVENTS)]
        await database.write(lambda session: room.jobs.enqueue_many(session, scope, "work", payloads))
        worker = await started(database)
        try:
            for _ in range(KILLS):
                await asyncio.sleep(random.uniform(0.2, 0.6))
                worker.kill()
                await worker.wait()
                worker = await started(database)
            await eventually(lambda: finished(database), within=90)
        finally:
            worker.kill()
            await worker.wait()
    ids: dict[int, set[str]] = defaultdict(set)
    for each in receiver.received:
        assert each.signed_by(secret)
        ids[each.json["data"]["number"]].add(each.id)
    assert sorted(ids) == list(range(EVENTS)), "every event arrived"
    assert all(len(known) == 1 for known in ids.values()), "always with the same id"
    log = await logged(room, scope, endpoint)
    assert {event for event, _ in log} == {each.id for each in receiver.received}
    assert len(log) == EVENTS, "one delivery an event"
    for event, attempts in log:
        arrived = sum(each.id == event for each in receiver.received)
        assert 1 <= attempts <= arrived, "what is logged was made; only what a kill cut off is missing"


async def _never(context: object) -> None:
    raise AssertionError("the observer does not work")


async def finished(database: SQLiteDatabase) -> bool:
    left = text(
        "SELECT (SELECT COUNT(*) FROM jobs WHERE kind = 'work' AND state <> 'succeeded') + "
        "(SELECT COUNT(*) FROM webhook_deliveries WHERE state <> 'delivered')"
    )
    return not await database.read(lambda session: session.execute(left).scalar_one())


async def logged(room: Room, scope: Scope, endpoint: str) -> list[tuple[str, int]]:
    """(event id, attempts) of the whole log."""
    found, cursor = await room.endpoints.deliveries(scope, endpoint, limit=200)
    log = list(found)
    while cursor is not None:
        found, cursor = await room.endpoints.deliveries(scope, endpoint, limit=200, cursor=cursor)
        log += found
    return [(each.event_id, each.attempts) for each in log]
