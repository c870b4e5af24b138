"""What each kind of upstream sends: the same answers in three wire formats."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from tests.models.upstream import Reply, Step

from terrace.models.base import Provider
from terrace.models.providers.opening import open_provider
from terrace.models.transport import Transport
from terrace.settings import Models
from terrace.settings import Provider as ProviderSettings

KEY = "sk-secret-0123456789"


class NoRanker:
    async def rank(self, question: str, passages: Any, scope: Any = None) -> list[Any]:
        return []


class Wire(ABC):
    """One kind of provider: how to open it, where it is asked, and how its upstream writes an answer."""

    kind: ClassVar[str]
    chat: ClassVar[str]
    listing: ClassVar[str]
    prefix: ClassVar[str] = ""
    media: ClassVar[str] = "text/event-stream"

    def open(self, url: str, transport: Transport, name: str = "up") -> Provider:
        settings = ProviderSettings.model_validate({"kind": self.kind, "base_url": url + self.prefix, "api_key": KEY})
        return open_provider(name, settings, Models(), transport, NoRanker())

    def reply(self, body: Sequence[Step]) -> Reply:
        return Reply(body, headers={"content-type": self.media})

    def begin(self) -> list[bytes]:
        return []

    @abstractmethod
    def text(self, text: str) -> bytes: ...

    @abstractmethod
    def thought(self, text: str) -> bytes: ...

    @abstractmethod
    def tool_call(self, id: str, name: str, arguments: list[str]) -> list[bytes]: ...

    @abstractmethod
    def end(self, reason: str = "stop", usage: tuple[int, int] | None = (7, 3)) -> list[bytes]:
        """`reason` in OpenAI's words."""

    @abstractmethod
    def failure(self, message: str) -> bytes:
        """An error in the middle of a stream."""

    def answer(self, *texts: str, reason: str = "stop", usage: tuple[int, int] | None = (7, 3)) -> Reply:
        return self.reply([*self.begin(), *map(self.text, texts), *self.end(reason, usage)])

    @abstractmethod
    def models(self, *names: str) -> dict[str, Any]: ...


def sse(value: object, event: str | None = None, eol: str = "\n") -> bytes:
    named = f"event: {event}{eol}" if event else ""
    return f"{named}data: {json.dumps(value)}{eol}{eol}".encode()


class OpenAIWire(Wire):
    kind, chat, listing, prefix = "openai", "/v1/chat/completions", "/v1/models", "/v1"
    done: ClassVar[list[bytes]] = [b"data: [DONE]\n\n"]

    def chunk(self, delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        return sse({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more,
        })  # fmt: skip

    def begin(self) -> list[bytes]:
        return [self.chunk({"role": "assistant", "content": ""})]

    def text(self, text: str) -> bytes:
        return self.chunk({"content": text})

    def thought(self, text: str) -> bytes:
        return self.chunk({"reasoning_content": text})

    def tool_call(self, id: str, name: str, arguments: list[str]) -> list[bytes]:
        first = {"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
        more = [{"index": 0, "function": {"arguments": piece}} for piece in arguments]
        return [self.chunk({"tool_calls": [call]}) for call in (first, *more)]

    def end(self, reason: str = "stop", usage: tuple[int, int] | None = (7, 3)) -> list[bytes]:
        pieces = [self.chunk({}, reason)]
        if usage is not None:
            said = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
            more = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            pieces.append(sse({**more, "choices": [], "usage": said}))
        return [*pieces, *self.done]

    def failure(self, message: str) -> bytes:
        return sse({"error": {"message": message, "type": "server_error"}})

    def models(self, *names: str) -> dict[str, Any]:
        listed = [{"id": name, "object": "model", "created": 1, "owned_by": "us"} for name in names]
        return {"object": "list", "data": listed}


class OllamaWire(Wire):
    kind, chat, listing, media = "ollama", "/api/chat", "/api/tags", "application/x-ndjson"

    def line(self, message: dict[str, Any], **more: Any) -> bytes:
        said = {"role": "assistant", "content": "", **message}
        value = {"model": "m", "created_at": "2025-01-01T00:00:00Z", "message": said, "done": False, **more}
        return json.dumps(value).encode() + b"\n"

    def text(self, text: str) -> bytes:
        return self.line({"content": text})

    def thought(self, text: str) -> bytes:
        return self.line({"thinking": text})

    def tool_call(self, id: str, name: str, arguments: list[str]) -> list[bytes]:
        return [self.line({"tool_calls": [{"function": {"name": name, "arguments": json.loads("".join(arguments))}}]})]

    def end(self, reason: str = "stop", usage: tuple[int, int] | None = (7, 3)) -> list[bytes]:
        counts = {"prompt_eval_count": usage[0], "eval_count": usage[1]} if usage else {}
        return [self.line({}, done=True, done_reason="length" if reason == "length" else "stop", **counts)]

    def failure(self, message: str) -> bytes:
        return json.dumps({"error": message}).encode() + b"\n"

    def models(self, *names: str) -> dict[str, Any]:
        return {
            "models": [
                {
                    "name": name, "model": name, "modified_at": f"2025-01-0{9 - position}T00:00:00Z", "size": 1000,
                    "digest": "d", "details": {"family": "bert" if "embed" in name else "llama", "format": "gguf"},
                }
                for position, name in enumerate(names)
            ]
        }  # fmt: skip


class AnthropicWire(Wire):
    kind, chat, listing = "anthropic", "/v1/messages", "/v1/models"
    reasons: ClassVar[dict[str, str]] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}

    def event(self, type: str, **more: Any) -> bytes:
        return sse({"type": type, **more}, type)

    def begin(self) -> list[bytes]:
        usage = {"input_tokens": 7, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 1}
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage,
        }  # fmt: skip
        start = self.event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        return [self.event("message_start", message=message), start, self.event("ping")]

    def text(self, text: str) -> bytes:
        return self.event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def thought(self, text: str) -> bytes:
        return (
            self.event(
                "content_block_start", index=1, content_block={"type": "thinking", "thinking": "", "signature": ""}
            )
            + self.event("content_block_delta", index=1, delta={"type": "thinking_delta", "thinking": text})
            + self.event("content_block_delta", index=1, delta={"type": "signature_delta", "signature": "x"})
            + self.event("content_block_stop", index=1)
        )

    def tool_call(self, id: str, name: str, arguments: list[str]) -> list[bytes]:
        block = {"type": "tool_use", "id": id, "name": name, "input": {}}
        pieces = [
            self.event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": piece})
            for piece in ("", *arguments)
        ]
        start = self.event("content_block_start", index=1, content_block=block)
        return [start, *pieces, self.event("content_block_stop", index=1)]

    def end(self, reason: str = "stop", usage: tuple[int, int] | None = (7, 3)) -> list[bytes]:
        said = {"output_tokens": (usage or (0, 1))[1]}
        delta = {"stop_reason": self.reasons[reason], "stop_sequence": None}
        return [
            self.event("content_block_stop", index=0),
            self.event("message_delta", delta=delta, usage=said),
            self.event("message_stop"),
        ]

    def failure(self, message: str) -> bytes:
        return self.event("error", error={"type": "overloaded_error", "message": message})

    def models(self, *names: str) -> dict[str, Any]:
        listed = [
            {"id": name, "type": "model", "display_name": name, "created_at": "2025-01-01T00:00:00Z"} for name in names
        ]
        return {"data": listed, "has_more": False, "first_id": names[0], "last_id": names[-1]}


WIRES: dict[str, Wire] = {wire.kind: wire for wire in (OpenAIWire(), OllamaWire(), AnthropicWire())}
