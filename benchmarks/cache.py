"""What an answer from the cache takes, and what a look that finds nothing adds.

`python -m benchmarks.cache` asks through the chat room and its durable job, with a model that answers at once, so that
what is left is ours: without the cache (the reference), with it and nothing found, with a hit; then the look alone in a
cache of 10,000 answers, exact and by meaning (2,000 questions compared, 384 dimensions).
"""

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from terrace import settings
from terrace.chat.answering import Answering
from terrace.chat.base import Ask
from terrace.chat.cache.base import Asking
from terrace.chat.cache.service import AnswerCache
from terrace.chat.service import Chat
from terrace.chat.tasks import kinds
from terrace.jobs.engines.local import LocalJobs
from terrace.knowledge.base import Filter, Hit, Page
from terrace.models.base import ChatRequest, Usage
from terrace.models.providers.fake import Fake
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.types import Scope

ASKED = 200
KEPT = 10_000
TOGETHER = 200  # kept in one commit
DIMENSIONS = 384
SCOPE = Scope("acme", "usr_1")
ANSWER = "The quay is seven metres deep [1]. " * 10


class Random:
    """Any text has a direction of its own."""

    name = "random"
    dimensions = DIMENSIONS

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        import numpy as np

        rows = [np.random.default_rng(abs(hash(text))).standard_normal(DIMENSIONS) for text in texts]
        found = np.array(rows, np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [1 for _ in texts]

    async def close(self) -> None: ...


class Running:
    def __init__(self, request: ChatRequest) -> None:
        self.model = request.model
        self._deltas: AsyncGenerator[Any, None] = Fake(scripts=[[ANSWER, Usage(500, 100)]]).stream(request)

    def __aiter__(self) -> "Running":
        return self

    async def __anext__(self) -> Any:
        return await anext(self._deltas)

    async def aclose(self) -> None:
        await self._deltas.aclose()


class Models:
    async def resolve(self, model: str | None, scope: Scope) -> Any:
        return SimpleNamespace(id="fake/echo", model="echo", provider=Fake(), kind="fake")

    async def context_tokens(self, model: str | None, scope: Scope) -> int | None:
        return None

    def stream(self, request: ChatRequest) -> Running:
        return Running(request)


class Shelf:
    async def has_documents(self, scope: Scope) -> bool:
        return True

    async def search(self, scope: Scope, query: str, *, k: int, filter: Filter) -> Sequence[Hit]:
        text = "The quay is seven metres deep."
        return [Hit("chk_1", "doc_1", "a.txt", "A", "default", text, 1.0, None, None, None, (), 0, len(text), "")]

    async def pages(self, scope: Scope, hits: Sequence[Hit]) -> Mapping[str, Sequence[Page]]:
        return {}


async def timed(work: Callable[[int], Awaitable[Any]], count: int = ASKED) -> tuple[float, float, float]:
    """Milliseconds: median and 95th percentile, and CPU of each."""
    gc.collect()
    took = []
    cpu = time.process_time()
    for number in range(count):
        begun = time.perf_counter()
        await work(number)
        took.append((time.perf_counter() - begun) * 1000)
    cpu = (time.process_time() - cpu) * 1000 / count
    return statistics.median(took), statistics.quantiles(took, n=20)[18], cpu


async def asked(database: Database, cache: AnswerCache) -> list[tuple[str, float, float, float]]:
    options = settings.Chat()
    jobs = LocalJobs(database, settings.Jobs(), kinds(database, Answering(Models(), Shelf(), options), cache=cache))
    chat = Chat(database, jobs, Models(), options, None, cache)
    await jobs.start()

    async def ask(question: str, *, cached: bool | None) -> None:
        started = await chat.ask(SCOPE, Ask(question, cache=cached))
        await jobs.wait(SCOPE, started.job_id)

    await ask("warm up", cached=True)
    kept = ("asked, nothing found, kept", *await timed(lambda n: ask(f"question {n}", cached=True)))
    rows = [
        ("asked without the cache", *await timed(lambda n: ask(f"question {n}", cached=None))),
        kept,
        ("asked, found", *await timed(lambda n: ask(f"question {n}", cached=True))),
    ]
    await jobs.close()
    return rows


async def looks(database: Database) -> list[tuple[str, float, float, float]]:
    exact = AnswerCache(database, settings.Cache(), Random())
    alike = AnswerCache(database, settings.Cache(semantic=True), Random())

    def asking(number: int) -> Asking:
        return Asking(f"What about number {number}?", "fake/echo")

    async def keep(number: int) -> None:
        place, _ = await alike.look(SCOPE, asking(number), renew=True)
        written = alike.written(ANSWER, [{"n": 1}], "fake/echo", Usage(500, 100))
        await database.write(alike.keep, SCOPE, place, written)

    for start in range(0, KEPT, TOGETHER):
        await asyncio.gather(*map(keep, range(start, start + TOGETHER)))
    return [
        (f"look, exact, found ({KEPT:,} kept)", *await timed(lambda n: exact.look(SCOPE, asking(n)))),
        ("look, exact, nothing found", *await timed(lambda n: exact.look(SCOPE, asking(-1 - n)))),
        ("look, by meaning, nothing found", *await timed(lambda n: alike.look(SCOPE, asking(-1 - n)), 50)),
    ]


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = SQLiteDatabase(Path(folder) / "terrace.db")
        await database.write(lambda session: migrate(session.connection()))
        rows = await asked(database, AnswerCache(database, settings.Cache()))
        rows += await looks(database)
        await database.close()
    print(f"{'':40} {'p50 ms':>8} {'p95 ms':>8} {'CPU ms':>8}")
    for name, median, high, cpu in rows:
        print(f"{name:40} {median:8.2f} {high:8.2f} {cpu:8.2f}")


if __name__ == "__main__":
    asyncio.run(main())
