"""A server to be killed: answers questions of the database it is given, and prints every event its clients see."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from terrace import settings
from terrace.chat.answering import Answering
from terrace.chat.tasks import kinds
from terrace.jobs.engines.local import LocalJobs
from terrace.knowledge.base import Filter, Hit, Page
from terrace.models.base import ChatRequest, Delta, Finish, TextDelta, Usage
from terrace.storage import SQLiteDatabase
from terrace.types import Scope

WORDS = 60
SCOPE = Scope("acme", "usr_ada")


class Slow:
    """Answers in words that differ from process to process, some of them citing, one in eight a source there isn't."""

    model = "fake/slow"

    async def resolve(self, model: str | None, scope: Scope) -> Any:
        return SimpleNamespace(id=self.model, model="slow", provider=SimpleNamespace(name="fake"), kind="fake")

    async def context_tokens(self, model: str | None, scope: Scope) -> int | None:
        return None

    def stream(self, request: ChatRequest) -> "Running":
        return Running(self._said())

    async def _said(self) -> AsyncIterator[Delta]:
        for number in range(WORDS):
            await asyncio.sleep(0.004)
            mark = "" if number % 4 else f" [{1 if number % 8 else 9}"
            yield TextDelta(f"{mark and mark + '] '}word{number}-{os.getpid()} ")
        yield Usage(1, WORDS)
        yield Finish()


class Running:
    model = Slow.model

    def __init__(self, deltas: Any) -> None:
        self._deltas = deltas

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Delta:
        delta: Delta = await anext(self._deltas)
        return delta

    async def aclose(self) -> None:
        await self._deltas.aclose()


class OnePassage:
    async def has_documents(self, scope: Scope) -> bool:
        return True

    async def search(self, scope: Scope, query: str, *, k: int, filter: Filter) -> Sequence[Hit]:
        return [Hit("chk_1", "doc_1", "a.pdf", "A", "default", "Some text.", 1.0, None, None, 1, (), 0, 10, "")]

    async def pages(self, scope: Scope, hits: Sequence[Hit]) -> Mapping[str, Sequence[Page]]:
        return {}


async def follow(jobs: LocalJobs, job_id: str) -> None:
    async for event in jobs.events(SCOPE, job_id):
        line = json.dumps([job_id, *event.id, event.type, event.data])
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


async def serve(path: Path, max_crashes: int, job_ids: Sequence[str]) -> None:
    database = SQLiteDatabase(path, durability="normal")
    answering = Answering(Slow(), OnePassage(), settings.Chat())
    options = settings.Jobs(io_slots=12, max_crashes=max_crashes)
    jobs = LocalJobs(database, options, kinds(database, answering))
    followers = [asyncio.create_task(follow(jobs, job_id)) for job_id in job_ids]
    await jobs.start()
    await asyncio.gather(*followers)
    await jobs.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
