"""The real job engine and store, a scripted model, and passages that a test puts on the table."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from terrace import settings
from terrace.chat.answering import Answering
from terrace.chat.base import Ask, Message, Started
from terrace.chat.service import Chat
from terrace.chat.tasks import kinds
from terrace.errors import Denied, Missing
from terrace.jobs.base import Job, JobEvent
from terrace.jobs.engines.local import LocalJobs
from terrace.knowledge.base import Filter, Hit, Page
from terrace.models.base import ChatRequest
from terrace.models.providers.fake import Fake, Step
from terrace.storage import Database
from terrace.types import Scope


class Running:
    def __init__(self, provider: Fake, request: ChatRequest) -> None:
        self.model = request.model
        self._deltas = provider.stream(request)

    def __aiter__(self) -> "Running":
        return self

    async def __anext__(self) -> Any:
        return await anext(self._deltas)

    async def aclose(self) -> None:
        await self._deltas.aclose()


class Models:
    """One scripted provider behind the door that chat knows."""

    def __init__(self) -> None:
        self.provider = Fake()
        self.context: int | None = None

    async def resolve(self, model: str | None, scope: Scope) -> Any:
        if model not in (None, "auto", "fake/echo", "fake/other"):
            raise Missing(f"No model is called {model}.", code="model_unknown")
        if scope.models and model == "fake/other":
            raise Denied("Not with this key.", code="model_not_allowed")
        chosen = model if model and model != "auto" else "fake/echo"
        return SimpleNamespace(id=chosen, model=chosen.removeprefix("fake/"), provider=self.provider, kind="fake")

    async def context_tokens(self, model: str | None, scope: Scope) -> int | None:
        return self.context

    def stream(self, request: ChatRequest) -> Running:
        return Running(self.provider, request)


@dataclass
class Shelf:
    """A retriever that finds what was put on it, whatever is asked."""

    hits: list[Hit] = field(default_factory=list)
    asked: list[tuple[Scope, str, int, Filter]] = field(default_factory=list)
    has_any: bool | None = None

    def put(self, *texts: str, title: str = "Title") -> None:
        for text in texts:
            n = len(self.hits) + 1
            span = (100, 100 + len(text))
            self.hits.append(
                Hit(f"chk_{n}", f"doc_{n}", f"file{n}.pdf", title, "default", text, 1 / n, None, None, 2, (), *span, "")
            )

    async def has_documents(self, scope: Scope) -> bool:
        return bool(self.hits) if self.has_any is None else self.has_any

    async def search(self, scope: Scope, query: str, *, k: int, filter: Filter) -> Sequence[Hit]:
        self.asked.append((scope, query, k, filter))
        return self.hits[:k]

    async def pages(self, scope: Scope, hits: Sequence[Hit]) -> Mapping[str, Sequence[Page]]:
        return {}


@dataclass
class Room:
    """Everything a test of the chat room touches."""

    chat: Chat
    jobs: LocalJobs
    models: Models
    shelf: Shelf
    answering: Answering
    scope: Scope
    database: Database

    def says(self, *scripts: Sequence[Step]) -> Fake:
        self.models.provider = Fake(scripts=scripts)
        return self.models.provider

    async def restart(self) -> None:
        """Shut the worker down and start another, as a restarted server does."""
        await self.jobs.close()
        self.jobs = LocalJobs(self.database, self.jobs.settings, kinds(self.database, self.answering))
        self.chat = Chat(self.database, self.jobs, self.models, settings.Chat(max_message_chars=10_000))
        await self.jobs.start()

    @property
    def prompt(self) -> list[dict[str, Any]]:
        return self.models.provider.requests[-1].messages

    async def ask(self, message: str, **more: Any) -> tuple[Started, Job]:
        started = await self.chat.ask(self.scope, Ask(message, **more))
        return started, await self.jobs.wait(self.scope, started.job_id, 20)

    async def events(self, job_id: str) -> list[JobEvent]:
        return [event async for event in self.jobs.events(self.scope, job_id)]

    async def message(self, started: Started) -> Message:
        _, messages = await self.chat.get(self.scope, started.conversation_id)
        return next(message for message in messages if message.id == started.message_id)


def shown(events: Sequence[JobEvent]) -> str:
    """What a client has put together from the events."""
    text = ""
    for event in events:
        match event.type:
            case "reset":
                text = ""
            case "text":
                text += event.data["text"]
            case "answer":
                text = event.data["content"]
    return text


@pytest.fixture
def seen() -> Callable[[Sequence[JobEvent]], str]:
    return shown


@pytest.fixture
async def room(database: Database, scope: Scope) -> AsyncIterator[Room]:
    models, shelf, options = Models(), Shelf(), settings.Chat(max_message_chars=10_000)
    answering = Answering(models, shelf, options)
    jobs = LocalJobs(database, settings.Jobs(backoff=0.01, drain=0.2), kinds(database, answering))
    await jobs.start()
    room = Room(Chat(database, jobs, models, options), jobs, models, shelf, answering, scope, database)
    yield room
    await room.jobs.close()
