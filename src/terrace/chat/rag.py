"""Answers from documents for a caller who keeps the conversation: what `/v1` means by `rag:<collection>`."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from terrace.chat.answering import Answered, Answering, Reasoning, Text
from terrace.chat.base import Retrieval, Turn
from terrace.errors import Invalid
from terrace.knowledge.base import Filter
from terrace.models.base import Delta, Finish, ReasoningDelta, TextDelta
from terrace.types import Scope

S = TypeVar("S")

AUTO = "auto"
# These ask for something other than one cited text, or belong to the door.
NOT_PASSED_ON = frozenset({"tools", "tool_choice", "functions", "function_call", "n", "stream", "stream_options"})


class RAG(Generic[S]):
    """The door's `Answerer`. `sources` makes the door's own event out of a list of sources as JSON."""

    def __init__(
        self,
        answering: Answering,
        collections: Callable[[Scope], Awaitable[Sequence[str]]],
        sources: Callable[[Sequence[dict[str, Any]]], S],
    ) -> None:
        self._answering = answering
        self._collections = collections
        self._sources = sources

    async def collections(self, scope: Scope) -> Sequence[str]:
        return await self._collections(scope)

    async def answer(
        self, scope: Scope, messages: list[dict[str, Any]], options: dict[str, Any], collections: Sequence[str]
    ) -> AsyncGenerator[Delta | S, None]:
        """What was found, deltas with checked marks, what was cited, Usage, Finish. Raises Invalid, Missing,
        Unavailable."""
        instructions, history, question = _conversation(messages)
        prepared = await self._answering.prepare(
            scope,
            AUTO,
            question,
            history,
            Retrieval(use=True, filter=Filter(collections=tuple(collections))),
            instructions=instructions,
            options={name: value for name, value in options.items() if name not in NOT_PASSED_ON},
        )
        yield self._sources([dict(source.to_json()) for source in prepared.sources])
        async with aclosing(self._answering.answer(prepared)) as pieces:
            async for piece in pieces:
                match piece:
                    case Text(text):
                        yield TextDelta(text)
                    case Reasoning(text):
                        yield ReasoningDelta(text)
                    case Answered():
                        yield self._sources([dict(source.to_json()) for source in piece.sources])
                        yield piece.usage
                        yield Finish(piece.finish_reason)


def _conversation(messages: Sequence[dict[str, Any]]) -> tuple[str, list[Turn], str]:
    """(the caller's instructions, the past, the question) of OpenAI's messages. Raises Invalid."""
    instructions: list[str] = []
    turns: list[Turn] = []
    for message in messages:
        text = _text(message.get("content"))
        match message.get("role"):
            case "system" | "developer":
                instructions.append(text)
            case "user":
                turns.append(Turn("user", text))
            case "assistant":
                turns.append(Turn("assistant", text))
    if not turns or turns[-1].role != "user" or not turns[-1].content.strip():
        raise Invalid("The last message must be the user's question.", code="no_question")
    question = turns.pop()
    return "\n\n".join(instructions), [turn for turn in turns if turn.content], question.content


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))
