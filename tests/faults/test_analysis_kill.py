"""Kill the worker while it draws and asks, again and again: it goes on where it was, and no stored answer is asked for
again."""

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlmodel import Session
from tests.analysis.conftest import Models, NoLibrary, pieces
from tests.analysis.sheets import numbered
from tests.faults.analysis_server import SCOPE

from terrace import settings
from terrace.analysis import store
from terrace.analysis.base import Wish
from terrace.analysis.reading import Reader
from terrace.analysis.service import Analyses
from terrace.analysis.tasks import RUN
from terrace.jobs.base import Context, JobKind
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.storage import SQLiteDatabase
from terrace.storage.blobs import FolderBlobs
from terrace.storage.migrate import migrate

pytestmark = pytest.mark.faults

SERVER = Path(__file__).with_name("analysis_server.py")
PAGES, KILLS = 40, 4


async def elsewhere(context: Context) -> None:
    raise AssertionError("this process runs nothing")


async def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "terrace.db", durability="normal")
    await database.write(lambda session: migrate(session.connection()))
    jobs = LocalJobs(database, settings.Jobs(), [JobKind(RUN, elsewhere)])
    processes = Processes(1)
    options = settings.Analysis()
    reader = Reader(processes, options, settings.Knowledge())
    analyses = Analyses(database, FolderBlobs(tmp_path / "blobs"), jobs, Models(), reader, options, NoLibrary())
    saved = await analyses.receive(SCOPE, "long.pdf", pieces(numbered(PAGES)))
    begun = await analyses.start(SCOPE, saved, Wish())
    assert begun.job_id is not None

    def answered(session: Session) -> int:
        return sum(step.answer is not None for step in store.steps(session, begun.id).values())

    chance, killed_at = random.Random(4), []
    command = (sys.executable, str(SERVER), str(tmp_path), begun.job_id)
    for _ in range(KILLS):
        process = await asyncio.create_subprocess_exec(*command)
        before, wanted = await database.read(answered), chance.randint(1, 8)
        async with asyncio.timeout(60):
            while process.returncode is None and await database.read(answered) < before + wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        killed_at.append(await database.read(answered))
        process.kill()
        await process.wait()
    last = await asyncio.create_subprocess_exec(*command)
    assert await asyncio.wait_for(last.wait(), 120) == 0

    done = await analyses.get(SCOPE, begun.id)
    calls = Counter((tmp_path / "calls").read_text().splitlines())
    assert done.state == "succeeded", done.error
    assert done.result is not None
    assert done.result["markdown"] == "Saw together."
    assert {f"[{number}] Page {number}" for number in range(1, PAGES + 1)} | {"together"} == set(calls)
    repeated = sum(calls.values()) - len(calls)
    assert repeated <= KILLS * 4  # what was answered, but not stored yet, when a kill came: at most those under way
    assert 0 < killed_at[0] < killed_at[-1] < PAGES
    await processes.close()
    await jobs.close()
    await database.close()
