"""The analysis room with a real engine, real readers and a model that says what a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmodel import Session
from tests.analysis.seer import Asked, answered

from terrace import settings
from terrace.analysis.base import Analysis, Wish
from terrace.analysis.reading import Reader
from terrace.analysis.running import Tools
from terrace.analysis.service import Analyses
from terrace.analysis.tasks import kinds
from terrace.errors import Missing, TerraceError
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.models.base import ChatRequest, Finish, TextDelta, Usage
from terrace.storage import Database
from terrace.storage.blobs import FolderBlobs
from terrace.types import Scope

Say = Callable[[Asked], str | TerraceError]


class Models:
    """One model, `lab/seer`, which sees unless `blind`; and the quote model beside."""

    def __init__(self) -> None:
        self.says: Callable[[Asked], Any] = answered()
        self.asked: list[Asked] = []
        self.blind = self.alone = False
        self.context: int | None = None
        self.passages: list[Sequence[Any]] = []

    async def resolve(self, model: str | None = None, scope: Scope = Scope()) -> Any:
        if model in ("quote", "quote/quote") or (self.alone and model is None):
            return SimpleNamespace(id="quote", provider=None, kind="quote")
        if model not in (None, "lab/seer"):
            raise Missing(f"There is no model `{model}`.", code="model_unknown")
        return SimpleNamespace(id="lab/seer", provider=None, kind="openai")

    async def sees(self, model: str | None = None, scope: Scope = Scope()) -> bool | None:
        return not self.blind

    async def seeing(self, scope: Scope = Scope()) -> str | None:
        return None if self.blind or self.alone else "lab/seer"

    async def context_tokens(self, model: str | None = None, scope: Scope = Scope()) -> int | None:
        return self.context

    def stream(self, request: ChatRequest) -> Any:
        return Running(self, request)


class Running:
    def __init__(self, models: Models, request: ChatRequest) -> None:
        self.model = request.model
        self._deltas = self._said(models, request)

    async def _said(self, models: Models, request: ChatRequest) -> AsyncIterator[Any]:
        asked = Asked({"messages": request.messages, **request.options})
        models.asked.append(asked)
        models.passages.append(request.passages)
        said = models.says(asked)
        if isinstance(said, TerraceError):
            raise said
        if asyncio.iscoroutine(said):
            said = await said
        yield TextDelta(said)
        yield Usage(10, 5)
        yield Finish()

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._deltas)

    async def aclose(self) -> None:
        await self._deltas.aclose()  # type: ignore[attr-defined]


@dataclass
class Told:
    """Webhooks that were to be sent."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sent: list[tuple[str, str]] = field(default_factory=list)

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None:
        self.events.append((type, data))

    def send_to(self, session: Session, scope: Scope, url: str, type: str, data: dict[str, Any]) -> None:
        self.sent.append((url, type))


class NoLibrary:
    async def upload(self, scope: Scope, name: str, stream: Any, **more: Any) -> Any:
        return name, b"".join([piece async for piece in stream]), more


@dataclass
class Room:
    """What a test of the room touches."""

    analyses: Analyses
    models: Models
    jobs: LocalJobs
    told: Told
    scope: Scope
    database: Database
    blobs: FolderBlobs
    processes: Processes

    async def start(self, name: str, data: bytes, **wish: Any) -> Analysis:
        saved = await self.analyses.receive(self.scope, name, pieces(data))
        return await self.analyses.start(self.scope, saved, Wish(**wish))

    async def analyse(self, name: str, data: bytes, **wish: Any) -> Analysis:
        """One file, to its end."""
        started = await self.start(name, data, **wish)
        assert started.job_id is not None
        await self.jobs.wait(self.scope, started.job_id, 60)
        return await self.analyses.get(self.scope, started.id)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.fixture
def options() -> settings.Analysis:
    return settings.Analysis()


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    found = Processes(2)
    yield found
    await found.close()


@pytest.fixture
async def room(
    database: Database, scope: Scope, tmp_path: Path, options: settings.Analysis, processes: Processes
) -> AsyncIterator[Room]:
    blobs, models, told = FolderBlobs(tmp_path / "blobs"), Models(), Told()
    jobs = LocalJobs(database, settings.Jobs(backoff=0.01, backoff_max=0.02))
    reader = Reader(processes, options, settings.Knowledge())
    analyses = Analyses(database, blobs, jobs, models, reader, options, NoLibrary())
    for kind in kinds(Tools(blobs, reader, models, options, None, told)):
        jobs.register(kind)
    await jobs.start()
    yield Room(analyses, models, jobs, told, scope, database, blobs, processes)
    await jobs.close()
