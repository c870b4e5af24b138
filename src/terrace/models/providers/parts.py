"""OpenAI's message content taken apart, for the providers that speak otherwise."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from terrace.errors import Invalid

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


def parts(content: object) -> Iterator[dict[str, Any]]:
    """The parts of a message's content; a string is one text part. Invalid for what is neither."""
    if content is None:
        return
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, list) and all(isinstance(part, dict) for part in content):
        yield from content
    else:
        raise Invalid("A message's content must be a string or a list of parts.", code="content_unreadable")


def text_of(content: object) -> str:
    """All text of a content, parts joined by newlines."""
    return "\n".join(part["text"] for part in parts(content) if isinstance(part.get("text"), str))


def image_url(part: dict[str, Any]) -> str:
    """Of an `image_url` part, which holds it directly or inside an object."""
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not url:
        raise Invalid("An image_url part needs a url.", code="content_unreadable")
    return url


def data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a data URL; None for any other URL."""
    if not url.startswith("data:"):
        return None
    match = _DATA_URL.match(url)
    if match is None:
        raise Invalid("An image's data URL must look like data:image/png;base64,...", code="content_unreadable")
    return match[1].lower(), url[match.end() :]


def unsupported(label: str, part: dict[str, Any]) -> Invalid:
    return Invalid(
        f"{label} takes text and images; a part of type `{part.get('type')}` can't be sent to it.",
        code="content_unsupported",
    )


def tool_calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls an assistant's message holds, those of them that name a function."""
    calls = dicts(message.get("tool_calls"))
    return [call for call in calls if isinstance(call.get("function"), dict) and _is_name(call["function"].get("name"))]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name != ""


def arguments(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call's arguments, which OpenAI's form keeps as a string of JSON. Invalid when they are no object."""
    function = call.get("function")
    text = function.get("arguments") if isinstance(function, dict) else None
    try:
        value = msgspec.json.decode(text) if isinstance(text, str) and text.strip() else (text or {})
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Invalid("A tool call's arguments must be a JSON object.", code="content_unreadable")
    return value


def json_schema(options: dict[str, Any]) -> tuple[bool, dict[str, Any] | None]:
    """Whether `response_format` asks for JSON, and the schema if it names one."""
    wanted = options.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return False, None
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    return True, schema if isinstance(schema, dict) else None


def functions(options: dict[str, Any]) -> list[dict[str, Any]]:
    """The function of each tool offered: {name, description?, parameters?}."""
    found = [tool.get("function") for tool in dicts(options.get("tools"))]
    return [function for function in found if isinstance(function, dict) and _is_name(function.get("name"))]


def answer_limit(options: dict[str, Any]) -> int | None:
    """The most tokens an answer may have, under either of its two names."""
    limit = options.get("max_completion_tokens") or options.get("max_tokens")
    return limit if isinstance(limit, int) and limit > 0 else None


def stops(options: dict[str, Any]) -> list[str]:
    stop = options.get("stop")
    if isinstance(stop, str):
        return [stop]
    return [each for each in stop if isinstance(each, str)] if isinstance(stop, list) else []


def dicts(value: object) -> list[dict[str, Any]]:
    """The objects of a list; nothing if it is none. What an upstream sends need not be what it promised."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def count(value: object) -> int:
    """A number of things as an upstream says it; 0 for anything else."""
    return value if isinstance(value, int) and value > 0 else 0
