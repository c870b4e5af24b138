"""How many tokens a text will cost, when no tokenizer of its model is at hand.

The rule: a quarter token per character below U+0080 (English prose and code: 3.5 to 4.5 characters a token), half
a token per character up to U+07FF (Cyrillic, Greek, Arabic, Hebrew, accents), one per character up to U+FFFF
(Chinese, Japanese, Korean and the scripts of South Asia) and two beyond (emoji). It errs towards too many, so that a
prompt cut to fit by it does fit. Written with UTF-8: those ranges are its one-, two-, three- and four-byte characters.

A bound is more than an estimate: what is reserved for a call before it is made. No tokenizer in use makes more than one
token of a byte, and of ASCII that people or programs write, with the JSON around it, more than one of two bytes.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from terrace.models.decoding import decode

MESSAGE_TOKENS = 4  # what a chat template adds around a message
IMAGE_TOKENS = 800  # about a megapixel in the models that publish their rule
IMAGE_BOUND = 4800  # the largest image, of the models that publish their rule and do not multiply it
SLACK = 64  # what a chat template adds to a short request

_encode = msgspec.json.Encoder().encode

_THREE_BYTES = re.compile("[\u0800-\uffff]+")
_FOUR_BYTES = re.compile("[\U00010000-\U0010ffff]+")


def estimate(text: str) -> int:
    """Tokens of `text`; 0 only for the empty one."""
    return -(-_quarters(text) // 4)


def estimate_messages(messages: Iterable[dict[str, Any]]) -> int:
    """Tokens of messages in OpenAI's form, images and tool calls included."""
    return sum(MESSAGE_TOKENS + _content(message) for message in messages)


def bound(body: bytes) -> int:
    """No fewer tokens than a request's JSON, or a text, can be; each image by its own rule, however long its bytes."""
    if b"image_url" not in body:
        return _most(len(body), body.isascii())
    try:
        request = decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        request = None
    messages = request.get("messages") if isinstance(request, dict) else None
    count, size = _images(messages if isinstance(messages, list) else [])
    return _most(max(0, len(body) - size), body.isascii()) + count * IMAGE_BOUND


def bound_messages(messages: Iterable[dict[str, Any]]) -> int:
    """As `bound`, of messages in OpenAI's form."""
    given = list(messages)
    count, size = _images(given)
    body = _encode(given)
    return _most(len(body) - size, body.isascii()) + count * IMAGE_BOUND


def _most(size: int, is_ascii: bool) -> int:
    return min(size, size // 2 + SLACK) if is_ascii else size


def _images(messages: list[Any]) -> tuple[int, int]:
    """How many images messages hold, and how many bytes of them stand in the messages themselves."""
    count = size = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "image_url":
                image = part.get("image_url")
                url = image.get("url") if isinstance(image, dict) else image
                count += 1
                if isinstance(url, str) and url.startswith("data:image/") and url.isascii():
                    size += len(url)
    return count, size


def _quarters(text: str) -> int:
    """Quarter tokens: 1, 2, 4 and 8 for a character of one to four bytes."""
    if text.isascii():
        return len(text)
    three = sum(map(len, _THREE_BYTES.findall(text)))
    four = sum(map(len, _FOUR_BYTES.findall(text)))
    return len(text.encode("utf-8", "replace")) + three + 4 * four


def _content(message: dict[str, Any]) -> int:
    content = message.get("content")
    tokens = 0
    if isinstance(content, str):
        tokens = estimate(content)
    elif isinstance(content, list):
        tokens = sum(_part(part) for part in content if isinstance(part, dict))
    return tokens + estimate(str(message.get("tool_calls") or ""))


def _part(part: dict[str, Any]) -> int:
    text = part.get("text")
    return estimate(text) if isinstance(text, str) else IMAGE_TOKENS
