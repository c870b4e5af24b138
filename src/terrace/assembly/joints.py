"""Where rooms meet that must not know each other: what one asks for, made of what another has."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlmodel import Session

from terrace.accounts.limits.base import Subject
from terrace.analysis.store import stored as stored_analyses
from terrace.batches.store import stored as stored_files
from terrace.campaigns.base import Turn
from terrace.campaigns.contacts.service import Conversations
from terrace.chat.service import Chat
from terrace.jobs.engines.local import LocalJobs
from terrace.knowledge.service import Knowledge
from terrace.knowledge.store import stored
from terrace.models.base import Embeddings
from terrace.models.service import Models
from terrace.settings import Settings
from terrace.telemetry.calls import Usage
from terrace.telemetry.prices import Prices, cost
from terrace.types import Scope


class Upstream:
    """A provider's embeddings for the knowledge room; the model room, which needs the embedder, comes after it."""

    def __init__(self, name: str, models: Callable[[], Models]) -> None:
        self.name = name
        self._models = models

    async def embed(self, model: str, texts: Sequence[str], scope: Scope) -> Embeddings:
        return await self._models().embed(f"{self.name}/{model}", texts, scope)


def turns_of(chat: Chat) -> Conversations:
    """What a conversation's owner sees of it: the visible branch."""

    async def turns(scope: Scope, conversation_id: str) -> list[Turn]:
        conversation, messages = await chat.get(scope, conversation_id)
        by_id = {message.id: message for message in messages}
        branch: list[Turn] = []
        at = conversation.head_id
        while at is not None and (message := by_id.get(at)) is not None:
            branch.append(Turn(message.role, message.content, message.created_at))
            at = message.parent_id
        return branch[::-1]

    return turns


def collection_names(knowledge: Knowledge) -> Callable[[Scope], Awaitable[Sequence[str]]]:
    async def names(scope: Scope) -> Sequence[str]:
        return [each.name for each in await knowledge.collections(scope)]

    return names


def job_starter(jobs: LocalJobs, kind: str) -> Callable[[Session, Scope, dict[str, Any]], str]:
    """Puts in a job of this kind, with the payload it is given."""

    def start(session: Session, scope: Scope, payload: dict[str, Any]) -> str:
        return jobs.enqueue(session, scope, kind, payload)

    return start


def stored_by(session: Session, subject: Subject) -> tuple[int, int]:
    """How many documents a subject has, and the bytes of these and of its other files."""
    documents, size = stored(session, subject)
    return documents, size + stored_files(session, subject) + stored_analyses(session, subject)


def cost_of(settings: Settings, prices: Prices, model: str, usage: Usage) -> int | None:
    """What a call of a model, by its public id, comes to; None when nobody knows its price."""
    provider, _, name = model.partition("/")
    configured = settings.models.providers.get(provider)
    price = prices.of(configured.kind if configured else provider, provider, name)
    return None if price is None else cost(price, usage)
