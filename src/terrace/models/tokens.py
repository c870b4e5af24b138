"""How many tokens a text will cost, when no tokenizer of its model is at hand.

The rule: a quarter token per character below U+0080 (English prose and code: 3.5 to 4.5 characters a token), half
a token per character up to U+07FF (Cyrillic, Greek, Arabic, Hebrew, accents), one per character up to U+FFFF
(Chinese, Japanese, Korean and the scripts of South Asia) and two beyond (emoji). It errs towards too many, so that a
prompt cut to fit by it does fit. Written with UTF-8: those ranges are its one-, two-, three- and four-byte characters.
"""

import re
from collections.abc import Iterable
from typing import Any

MESSAGE_TOKENS = 4  # what a chat template adds around a message
IMAGE_TOKENS = 800  # about a megapixel in the models that publish their rule

_THREE_BYTES = re.compile("[\u0800-\uffff]+")
_FOUR_BYTES = re.compile("[\U00010000-\U0010ffff]+")


def estimate(text: str) -> int:
    """Tokens of `text`; 0 only for the empty one."""
    return -(-_quarters(text) // 4)


def estimate_messages(messages: Iterable[dict[str, Any]]) -> int:
    """Tokens of messages in OpenAI's form, images and tool calls included."""
    return sum(MESSAGE_TOKENS + _content(message) for message in messages)


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
