"""A worker to be killed: analyses the file of the database it is given, one page a call, and notes each call."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from terrace import settings
from terrace.analysis.base import Silent
from terrace.analysis.reading import Reader
from terrace.analysis.running import Tools
from terrace.analysis.tasks import kinds
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.models.base import ChatRequest, Delta, Finish, TextDelta, Usage
from terrace.storage import SQLiteDatabase
from terrace.storage.blobs import FolderBlobs
from terrace.types import Scope

SCOPE = Scope("acme", "usr_ada")
MODEL = "fake/seer"


class Slow:
    """Sees, slowly; each call it has answered is a line of the log, written before the answer ends."""

    def __init__(self, log: Path) -> None:
        self._log = log

    async def resolve(self, model: str | None = None, scope: Scope = SCOPE) -> Any:
        return SimpleNamespace(id=MODEL, kind="fake", provider=None)

    async def sees(self, model: str | None = None, scope: Scope = SCOPE) -> bool | None:
        return True

    async def seeing(self, scope: Scope = SCOPE) -> str | None:
        return MODEL

    async def context_tokens(self, model: str | None = None, scope: Scope = SCOPE) -> int | None:
        return None

    def stream(self, request: ChatRequest) -> Any:
        return Running(self._said(request))

    async def _said(self, request: ChatRequest) -> AsyncIterator[Delta]:
        content = request.messages[-1]["content"]
        which = "together" if isinstance(content, str) else content[1]["text"]
        await asyncio.sleep(0.05)
        yield TextDelta(json.dumps({"markdown": f"Saw {which}.", "pages": []}))
        yield Usage(1, 1)
        with self._log.open("a") as log:
            log.write(which + "\n")
        yield Finish()


class Running:
    model = MODEL

    def __init__(self, deltas: Any) -> None:
        self._deltas = deltas

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Delta:
        delta: Delta = await anext(self._deltas)
        return delta

    async def aclose(self) -> None:
        await self._deltas.aclose()


async def work(folder: Path, job_id: str) -> None:
    database = SQLiteDatabase(folder / "terrace.db", durability="normal")
    options = settings.Analysis(pages_at_once=1, dpi=72)
    processes = Processes(1)
    reader = Reader(processes, options, settings.Knowledge())
    tools = Tools(FolderBlobs(folder / "blobs"), reader, Slow(folder / "calls"), options, None, Silent())
    jobs = LocalJobs(database, settings.Jobs(max_crashes=100), kinds(tools))
    await jobs.start()
    await jobs.wait(SCOPE, job_id)
    await jobs.close()
    await processes.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2]))
