"""The chat room with a cache over real collections, a scripted model, and an embedder that counts letters."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlmodel import Session
from tests.chat.conftest import Models, Room, Shelf

from terrace import settings
from terrace.chat.answering import Answering
from terrace.chat.cache.service import AnswerCache
from terrace.chat.service import Chat
from terrace.chat.tasks import kinds
from terrace.jobs.engines.local import LocalJobs
from terrace.knowledge import store as library
from terrace.storage import Database
from terrace.telemetry.calls import Usage
from terrace.types import Scope, now


class Letters:
    """Two texts are as alike as their letters."""

    name = "letters"
    dimensions = 26

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        import numpy as np

        self.asked += texts
        counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    async def close(self) -> None: ...


@dataclass
class CachedRoom(Room):
    cache: AnswerCache
    letters: Letters
    counted: list[str] = field(default_factory=list)
    moved: list[float] = field(default_factory=lambda: [0.0])  # seconds by which the clock is ahead

    async def answers(self, message: str, scope: Scope | None = None, **more: Any) -> dict[str, Any]:
        """The result of a question that takes what the cache has."""
        from terrace.chat.base import Ask

        scope = scope or self.scope
        started = await self.chat.ask(scope, Ask(message, **{"cache": True, **more}))
        job = await self.jobs.wait(scope, started.job_id, 20)
        assert job.state == "succeeded", job.error
        return job.result or {}

    async def changed(self, collection: str = "default", scope: Scope | None = None) -> None:
        """Something in the collection is read, changed or deleted."""

        def work(session: Session) -> None:
            row = library.ensure_collection(session, scope or self.scope, collection)
            library.changed(session, scope or self.scope, row.id)

        await self.database.write(work)

    @property
    def calls(self) -> int:
        return len(self.models.provider.requests)


@pytest.fixture
def options() -> settings.Cache:
    return settings.Cache()


@pytest.fixture
async def cached(database: Database, scope: Scope, options: settings.Cache) -> AsyncIterator[CachedRoom]:
    models, shelf, chat = Models(), Shelf(), settings.Chat(max_message_chars=10_000)
    answering = Answering(models, shelf, chat)
    letters, counted, moved = Letters(), list[str](), [0.0]

    def cost(model: str, usage: Usage) -> int:
        return 10**9 * (usage.input_tokens + usage.output_tokens)

    cache = AnswerCache(database, options, letters, cost=cost, count=counted.append, clock=lambda: now() + moved[0])
    jobs = LocalJobs(database, settings.Jobs(backoff=0.01, drain=0.2), kinds(database, answering, cache=cache))
    await jobs.start()
    room = CachedRoom(
        Chat(database, jobs, models, chat, None, cache), jobs, models, shelf, answering, scope, database,
        cache, letters, counted, moved,
    )  # fmt: skip
    room.shelf.put("The quay is seven metres deep.")
    yield room
    await room.jobs.close()
