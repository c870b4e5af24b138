"""Deltas in OpenAI's words: `chat.completion` and `text_completion`, whole or in chunks."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from terrace.models.base import Delta, Finish, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from terrace.types import new_id, now
from terrace.web.openai.base import Sources

DONE = b"data: [DONE]\n\n"
Form = Literal["chat", "text"]

_encode = msgspec.json.Encoder().encode


def completion_id(form: Form) -> str:
    prefix = "chatcmpl" if form == "chat" else "cmpl"
    return new_id(prefix).replace("_", "-")


def usage_object(usage: Usage) -> dict[str, Any]:
    said: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_tokens:
        said["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.estimated:
        said["estimated"] = True  # ours: the provider did not say
    return said


class Chunks:
    """One streamed answer. What is the same in every chunk is encoded once."""

    def __init__(self, form: Form, model: str, *, wants_usage: bool) -> None:
        self._form = form
        self._wants_usage = wants_usage
        kind = "chat.completion.chunk" if form == "chat" else "text_completion"
        head = {"id": completion_id(form), "object": kind, "created": int(now()), "model": model}
        self._head = b"data: " + _encode(head)[:-1]
        self._tail = b',"usage":null}\n\n' if wants_usage else b"}\n\n"
        self._usage: Usage | None = None
        self._sources: Sequence[dict[str, Any]] | None = None
        self._begun = False

    def events(self, delta: Delta | Sources) -> Iterator[bytes]:
        """The events a delta makes: none, one, or at the end several."""
        match delta:
            case Sources(items):
                self._sources = items  # goes with the next chunk
            case TextDelta(text):
                yield self._chunk({"content": text})
            case ReasoningDelta(text) if self._form == "chat":
                yield self._chunk({"reasoning_content": text})
            case ToolCallDelta(call) if self._form == "chat":
                yield self._chunk({"tool_calls": [call]})
            case Usage():
                self._usage = delta
            case Finish(reason):
                yield self._chunk({}, reason)
                if self._wants_usage and self._usage is not None:
                    yield b'%b,"choices":[],"usage":%b}\n\n' % (self._head, _encode(usage_object(self._usage)))
                yield DONE

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        if self._form == "text":
            choice = {"index": 0, "text": delta.get("content", ""), "logprobs": None, "finish_reason": reason}
        else:
            if not self._begun:
                delta = {"role": "assistant", **delta}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        self._begun = True
        extra = b""
        if self._sources is not None:
            extra = b',"sources":' + _encode(self._sources)
            self._sources = None
        return b'%b,"choices":[%b]%b%b' % (self._head, _encode(choice), extra, self._tail)


class Whole:
    """One answer collected."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._usage: Usage | None = None
        self._reason = "stop"
        self._sources: Sequence[dict[str, Any]] | None = None

    def add(self, delta: Delta | Sources) -> None:
        match delta:
            case TextDelta(text):
                self._text.append(text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case ToolCallDelta(call):
                self._add_call(call)
            case Usage():
                self._usage = delta
            case Finish(reason):
                self._reason = reason
            case Sources(items):
                self._sources = items

    def _add_call(self, piece: dict[str, Any]) -> None:
        call = self._calls.setdefault(
            piece.get("index", len(self._calls)),
            {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
        )
        call["id"] = piece.get("id") or call["id"]
        function = piece.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""

    def encode(self, model: str) -> bytes:
        text = "".join(self._text)
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": self._reason}
        if self._form == "text":
            choice["text"] = text
        else:
            choice["message"] = self._message(text)
        answer: dict[str, Any] = {
            "id": completion_id(self._form),
            "object": "chat.completion" if self._form == "chat" else "text_completion",
            "created": int(now()),
            "model": model,
            "choices": [choice],
            "usage": usage_object(self._usage) if self._usage else None,
        }
        if self._sources is not None:
            answer["sources"] = self._sources
        return _encode(answer)

    def _message(self, text: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self._calls:
            message["content"] = text or None
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        return message
