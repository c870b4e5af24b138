"""JSON taken out of what a model wrote: alone, inside prose or a code fence, with its end cut off."""

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_CHARS = 4_000_000
TRIES = 40  # places where an object may begin

_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.S | re.I)
_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>", re.I)
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.S)
_COMMA = re.compile(r",(\s*[}\]])")
_decoder = json.JSONDecoder(strict=False)  # line breaks inside strings are a model's commonest slip


def find_object(text: str) -> dict[str, Any] | None:
    """The JSON object in it, the largest when there are several; None when there is none."""
    text = _spoken(text[:MAX_CHARS])
    for candidate in _candidates(text):
        found = _decoded(candidate)
        if found is not None:
            return found
    largest = max(_embedded(text), key=lambda each: each[1], default=None)
    if largest is not None:
        return largest[0]
    begin = text.find("{")
    return _decoded(_closed(text[begin:])) if begin >= 0 else None


def without_fence(text: str) -> str:
    """Markdown that a model has put into one code fence as a whole, or thought aloud before, without that."""
    text = _spoken(text)
    inside = re.fullmatch(r"```(?:markdown|md)?[ \t]*\n(.*)\n?```", text, re.S | re.I)
    return inside[1].strip() if inside and "\n```" not in inside[1] else text


def _spoken(text: str) -> str:
    """Without what was thought aloud. After the last end there is nothing to look for, however much begins there."""
    last = max((found.end() for found in _THOUGHT_ENDS.finditer(text)), default=0)
    return (_THOUGHT.sub("", text[:last]) + text[last:]).strip()


def _candidates(text: str) -> Iterator[str]:
    yield text
    if text.count("```") < 2 * TRIES:
        yield from sorted((each[1].strip() for each in _FENCE.finditer(text)), key=len, reverse=True)


def _embedded(text: str) -> Iterator[tuple[dict[str, Any], int]]:
    """(object, length) of those that stand in prose."""
    place = 0
    for _ in range(TRIES):
        place = text.find("{", place)
        if place < 0:
            return
        try:
            value, end = _decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        if isinstance(value, dict) and value:
            yield value, end - place
        place = max(end, place + 1)


def _decoded(text: str) -> dict[str, Any] | None:
    for form in (text, _COMMA.sub(r"\1", text)):
        try:
            value = _decoder.decode(form)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


def _closed(text: str) -> str:
    """An object whose end is missing, ended: open strings, lists and objects are closed where it stops."""
    open: list[str] = []
    quoted = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif quoted:
            escaped = character == "\\"
            quoted = character != '"'
        elif character == '"':
            quoted = True
        elif character in "{[":
            open.append("}" if character == "{" else "]")
        elif character in "}]" and open:
            open.pop()
            if not open:
                break
    if len(open) > 200:
        return ""
    if escaped:
        text = text[:-1]
    text = re.sub(r"\\u[0-9a-fA-F]{0,3}$", "", text) + ('"' if quoted else "")
    ended = re.sub(r"[\s,]+$", "", text)
    tail = "".join(reversed(open))
    for form in (ended + tail, re.sub(r',?\s*"(?:[^"\\]|\\.)*"\s*:?\s*$', "", ended) + tail,
                 re.sub(r"[\w.+-]+$", "null", ended) + tail):  # fmt: skip
        if _decoded(form) is not None:
            return form
    return ""
