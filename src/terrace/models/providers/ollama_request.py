"""A request in OpenAI's form as Ollama's own API takes it."""

from collections.abc import Iterator, Sequence
from typing import Any

from terrace.errors import Invalid
from terrace.models.base import ChatRequest
from terrace.models.providers.parts import (
    answer_limit,
    arguments,
    data_url,
    image_url,
    json_schema,
    parts,
    stops,
    text_of,
    tool_calls,
    unsupported,
)

# OpenAI's names and Ollama's; those that are the same in both stand once.
OPTIONS = {
    name: name
    for name in ("temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty", "num_ctx")
}


def body(request: ChatRequest, label: str) -> dict[str, Any]:
    """Raises Invalid for content Ollama can't take."""
    options = request.options
    native = {ours: options[theirs] for theirs, ours in OPTIONS.items() if options.get(theirs) is not None}
    if (limit := answer_limit(options)) is not None:
        native["num_predict"] = limit
    if stop := stops(options):
        native["stop"] = stop
    sent: dict[str, Any] = {
        "model": request.model,
        "messages": list(_messages(request.messages, label)),
        "stream": True,
        "options": native,
    }
    wanted, schema = json_schema(options)
    if wanted:
        sent["format"] = schema or "json"
    if options.get("tool_choice") != "none" and options.get("tools"):
        sent["tools"] = options["tools"]
    return sent | {name: options[name] for name in ("think", "keep_alive") if name in options}


def _messages(messages: Sequence[dict[str, Any]], label: str) -> Iterator[dict[str, Any]]:
    called: dict[str, str] = {}  # id of a tool call -> the tool, which Ollama wants named
    for message in messages:
        role = "system" if message.get("role") == "developer" else message.get("role")
        said: dict[str, Any] = {"role": role, "content": text_of(message.get("content"))}
        if images := [_image(part, label) for part in parts(message.get("content")) if part.get("type") != "text"]:
            said["images"] = images
        calls = tool_calls(message)
        if calls:
            said["tool_calls"] = [
                {"function": {"name": call["function"]["name"], "arguments": arguments(call)}} for call in calls
            ]
            called |= {str(call.get("id")): call["function"]["name"] for call in calls}
        if role == "tool":
            said["tool_name"] = str(message.get("name") or called.get(str(message.get("tool_call_id")), ""))
        yield said


def _image(part: dict[str, Any], label: str) -> str:
    if part.get("type") != "image_url":
        raise unsupported(label, part)
    if (data := data_url(image_url(part))) is None:
        raise Invalid(
            f"{label} fetches no images from the web. Send the image as a data URL.", code="content_unsupported"
        )
    return data[1]
