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
    tools = options.get("tools")
    found = [tool.get("function") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return [function for function in found if isinstance(function, dict) and isinstance(function.get("name"), str)]


def answer_limit(options: dict[str, Any]) -> int | None:
    """The most tokens an answer may have, under either of its two names."""
    limit = options.get("max_completion_tokens") or options.get("max_tokens")
    return limit if isinstance(limit, int) and limit > 0 else None


def stops(options: dict[str, Any]) -> list[str]:
    stop = options.get("stop")
    return [stop] if isinstance(stop, str) else [each for each in stop or () if isinstance(each, str)]
