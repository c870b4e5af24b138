"""`kill -9` at random moments while calls are made and booked: the books say what was spent, each call once."""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlmodel import Session
from tests.telemetry.calls import booked as calls_of
from tests.telemetry.calls import sums

from terrace.storage import SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.telemetry.ledger import Ledger

WORKER = Path(__file__).with_name("ledger_worker.py")
ROUNDS = 6
TOGETHER = 2  # processes on the same data
RESERVED = 5000 * 2_500_000 + 5000 * 10_000_000
SEED = int(os.environ.get("FAULT_SEED", random.randrange(2**32)))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def start(data: Path, name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, str(WORKER), str(data), name], stdout=subprocess.PIPE, text=True)


def live_and_die(data: Path, chance: random.Random, life: int) -> None:
    """Two at once: they take over what those before them left, and one may die while it does."""
    processes = [start(data, f"{SEED}-{life}-{number}") for number in range(TOGETHER)]
    for process in processes:
        assert process.stdout is not None
        until = "starting" if chance.random() < 0.2 else "working"
        while process.stdout.readline().strip() != until:
            assert process.poll() is None
    for process in processes:
        time.sleep(chance.uniform(0, 0.6))
        process.kill()
    for process in processes:
        process.communicate()


def told(data: Path) -> dict[str, set[int | None]]:
    """What each call may be booked as; None: not at all. More than one only for what was cut off in the act."""
    may: dict[str, set[int | None]] = {}
    costs: dict[str, int] = {}
    for path in data.glob("*.story"):
        for line in path.read_text().splitlines():
            match line.split():
                case ["begin", call]:
                    may[call] = {None, RESERVED}
                case ["begun", call]:
                    may[call] = {RESERVED}
                case ["end", call, cost]:
                    costs[call] = int(cost)
                    may[call] = {RESERVED, int(cost)}
                case ["ended", call]:
                    may[call] = {costs[call]}
    return may


def booked(session: Session) -> dict[str, tuple[int, str]]:
    calls = calls_of(session)
    assert len({call.job_id for call in calls}) == len(calls), "a call was booked twice"
    return {str(call.job_id): (call.cost or 0, call.outcome) for call in calls}


async def test_killed_while_calls_are_made(tmp_path: Path) -> None:
    print(f"FAULT_SEED={SEED}")
    chance = random.Random(SEED)
    database = SQLiteDatabase(tmp_path / "terrace.db", durability="normal")
    await database.write(lambda session: migrate(session.connection()))
    for life in range(ROUNDS):
        await asyncio.to_thread(live_and_die, tmp_path, chance, life)
    ledger = Ledger(database, tmp_path / "usage")
    await ledger.start()
    await ledger.close()
    may, rows = told(tmp_path), await database.read(booked)
    calls, days = await database.read(sums)
    await database.close()

    assert set(rows) <= set(may)
    for call, costs in may.items():
        cost, outcome = rows.get(call, (None, ""))
        assert cost in costs
        assert (outcome == "lost") == (cost == RESERVED)
    certain = sum(cost for costs in may.values() if len(costs) == 1 for cost in costs if cost)
    doubtful = [call for call, costs in may.items() if len(costs) > 1]
    assert len(doubtful) <= ROUNDS * TOGETHER
    assert calls == days
    assert calls[6] == certain + sum(rows[call][0] for call in doubtful if call in rows)
    assert sum(outcome == "lost" for _, outcome in rows.values()) > ROUNDS, "nothing was under way: it showed nothing"
    assert len(rows) > 600
    assert not any((tmp_path / "usage").iterdir())
