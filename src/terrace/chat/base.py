"""The words of the chat room, and what it needs of the rooms below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from terrace.knowledge.base import Filter, Hit, Page
from terrace.models.base import ChatRequest, Deltas
from terrace.types import Scope

Role = Literal["user", "assistant"]
MessageState = Literal["running", "complete", "stopped", "failed"]
ConversationKind = Literal["cnv", "qst"]
"""What its id begins with: a conversation of the page's, or a question asked by itself."""

GENERATE = "chat.generate"


@dataclass(frozen=True, slots=True)
class Ask:
    """A question. Without `parent_id` it goes on after the conversation's visible branch.

    `parent_id` names the answer to go on after (a branch), or the user's message to replace (an edit).
    """

    message: str
    use_rag: bool | None = None  # None: when the tenant has documents
    model: str | None = None
    conversation_id: str | None = None
    collections: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    parent_id: str | None = None
    passages: int | None = None
    key: str | None = None  # the same key asks the same question once, however often it is sent
    kind: ConversationKind = "cnv"  # of a new conversation
    cache: bool | None = None  # whether an answer given before may serve


@dataclass(frozen=True, slots=True)
class Started:
    conversation_id: str
    user_message_id: str
    message_id: str
    job_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    parent_id: str | None
    role: Role
    content: str
    state: MessageState
    model: str | None
    sources: list[dict[str, Any]]
    usage: dict[str, Any] | None
    job_id: str | None
    error: dict[str, Any] | None
    created_at: datetime
    cached: bool = False  # given before, to this question or to one that means the same
    cached_at: datetime | None = None  # when it was written then


@dataclass(frozen=True, slots=True)
class Conversation:
    """`messages` counts all branches; `snippet` is set by a search that found a message."""

    id: str
    title: str
    head_id: str | None
    created_at: datetime
    updated_at: datetime
    messages: int
    snippet: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange of the past, as a model reads it."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What to look for, and where. `use` None means: when there are documents."""

    use: bool | None = None
    filter: Filter = field(default_factory=Filter)
    passages: int | None = None


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Choice(Protocol):
    @property
    def id(self) -> str:
        """What users call the model."""

    @property
    def model(self) -> str:
        """What its provider calls it."""

    @property
    def provider(self) -> Named: ...
    @property
    def kind(self) -> str:
        """Of the provider, as in the settings."""


class Answer(Deltas, Protocol):
    @property
    def model(self) -> str:
        """Who answers; certain once the first delta is there."""


class Answers(Protocol):
    """Models, as chat needs them: `terrace.models.service.Models` is one."""

    async def resolve(self, model: str | None, scope: Scope) -> Choice:
        """The model a name means, the default's for None. Raises Missing or Invalid for an unknown one, Denied for one
        that the caller may not use."""

    async def context_tokens(self, model: str | None, scope: Scope) -> int | None:
        """None where nobody knows."""

    def stream(self, request: ChatRequest) -> Answer: ...


class Retriever(Protocol):
    """Documents, as chat needs them."""

    async def has_documents(self, scope: Scope) -> bool: ...

    async def search(self, scope: Scope, query: str, *, k: int, filter: Filter) -> Sequence[Hit]:
        """The k best passages, best first."""

    async def pages(self, scope: Scope, hits: Sequence[Hit]) -> Mapping[str, Sequence[Page]]:
        """The pages that these passages touch, by document, so that a quote's link opens the page it stands on."""
