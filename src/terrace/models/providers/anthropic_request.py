"""A request in OpenAI's form as Anthropic's Messages API takes it."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from terrace.models.base import ChatRequest
from terrace.models.providers.parts import (
    answer_limit,
    arguments,
    data_url,
    functions,
    image_url,
    json_schema,
    parts,
    stops,
    text_of,
    tool_calls,
    unsupported,
)

ANSWER_TOKENS = 4096  # Anthropic wants a limit always; this one when the request has none
ANSWER_TOOL = "answer_in_json"
BEGIN = "Begin."  # a conversation must open with the user
JSON_ONLY = "Answer with one JSON object and nothing else: no explanation, no code fence."
CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def body(request: ChatRequest, label: str) -> dict[str, Any]:
    """Raises Invalid for content Anthropic can't take."""
    options = request.options
    tools = [_tool(function) for function in functions(options)]
    wanted, schema = json_schema(options)
    system = [text_of(each.get("content")) for each in request.messages if each.get("role") in ("system", "developer")]
    sent: dict[str, Any] = {
        "model": request.model,
        "max_tokens": answer_limit(options) or ANSWER_TOKENS,
        "messages": _alternating(_turns(request.messages, label)),
        "stream": True,
    }
    if wanted and schema is not None and not tools:
        answer = {"name": ANSWER_TOOL, "description": "Give the answer.", "input_schema": schema}
        sent |= {"tools": [answer], "tool_choice": {"type": "tool", "name": ANSWER_TOOL}}
    elif wanted:
        form = f" It must fit this JSON schema: {msgspec.json.encode(schema).decode()}" if schema else ""
        system.append(JSON_ONLY + form)
    if tools:
        sent |= {"tools": tools, "tool_choice": _tool_choice(options)}
    if text := "\n\n".join(filter(None, system)):
        sent["system"] = text
    return sent | _sampling(options)


def _sampling(options: dict[str, Any]) -> dict[str, Any]:
    sent = {name: options[name] for name in ("top_p", "top_k", "thinking") if options.get(name) is not None}
    if isinstance(temperature := options.get("temperature"), int | float):
        sent["temperature"] = min(max(temperature, 0), 1)  # OpenAI's goes to 2
    if stop := [each for each in stops(options) if each.strip()]:
        sent["stop_sequences"] = stop
    if isinstance(options.get("user"), str):
        sent["metadata"] = {"user_id": options["user"]}
    return sent


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    described = {"description": function["description"]} if function.get("description") else {}
    return {"name": function["name"], "input_schema": schema, **described}


def _tool_choice(options: dict[str, Any]) -> dict[str, Any]:
    wanted = options.get("tool_choice")
    named = wanted.get("function") if isinstance(wanted, dict) else None
    if isinstance(named, dict) and named.get("name"):
        choice: dict[str, Any] = {"type": "tool", "name": named["name"]}
    else:
        choice = {"type": CHOICES.get(wanted, "auto") if isinstance(wanted, str) else "auto"}
    if options.get("parallel_tool_calls") is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _turns(messages: Iterable[dict[str, Any]], label: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each message as a role and its blocks; empty text, which Anthropic refuses, is left out."""
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer"):
            continue
        if role == "tool":
            result = {
                "type": "tool_result",
                "tool_use_id": str(message.get("tool_call_id")),
                "content": text_of(content),
            }
            yield "user", [result]
            continue
        blocks = [block for part in parts(content) for block in _block(part, label)]
        blocks += [
            {"type": "tool_use", "id": str(call.get("id")), "name": call["function"]["name"], "input": arguments(call)}
            for call in tool_calls(message)
        ]
        yield "assistant" if role == "assistant" else "user", blocks


def _block(part: dict[str, Any], label: str) -> Iterator[dict[str, Any]]:
    if part.get("type") == "image_url":
        url = image_url(part)
        data = data_url(url)
        source = {"type": "base64", "media_type": data[0], "data": data[1]} if data else {"type": "url", "url": url}
        yield {"type": "image", "source": source}
    elif isinstance(part.get("text"), str):
        if part["text"].strip():
            yield {"type": "text", "text": part["text"]}
    else:
        raise unsupported(label, part)


def _alternating(turns: Iterable[tuple[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Neighbours of one role merged; the user first."""
    merged: list[dict[str, Any]] = []
    for role, blocks in turns:
        if not blocks:
            continue
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"].extend(blocks)
        else:
            merged.append({"role": role, "content": list(blocks)})
    if not merged or merged[0]["role"] != "user":
        merged.insert(0, {"role": "user", "content": [{"type": "text", "text": BEGIN}]})
    last = merged[-1]
    if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
        last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()  # or it is refused
    return merged
