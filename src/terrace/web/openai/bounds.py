"""How long an answer may get: what the request says of it, and saying it where limits want a bound."""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import msgspec

from terrace.web.openai.request import Fields, typed_field

NAMES = ("max_completion_tokens", "max_tokens")
TEXT_PATH, EMBEDDINGS_PATH = "/completions", "/embeddings"
NEWER = (".openai.com", ".openai.azure.com")  # whose chat takes the first of the names alone


@dataclass(slots=True)
class Asked:
    """What matters of a request that is passed on. `tokens` is the most that its answer may have, None without a bound;
    `copies` of an answer are written, one or more for each prompt."""

    path: str
    stream: bool
    wants_usage: bool
    tokens: int | None
    copies: int

    def within(self, fields: Fields, tokens: int, url: str) -> Fields:
        """With a bound to the answer."""
        if self.path == EMBEDDINGS_PATH:
            return fields
        name = NAMES[0] if self.path != TEXT_PATH and _is_newer(url) else NAMES[1]
        sent = {**fields, name: msgspec.Raw(b"%d" % max(1, tokens // self.copies))}
        sent.pop(NAMES[1] if name == NAMES[0] else NAMES[0], None)
        return sent


def bounded(fields: Fields, path: str) -> tuple[int | None, int]:
    """The most tokens an answer may have, if it is said, and how many are written. Raises Invalid."""
    tokens = None
    for name in NAMES:
        if name in fields:
            said = typed_field(fields, name, int, "a whole number")
            if said is not None and said > 0 and (tokens is None or said > tokens):
                tokens = said
    copies = 1
    if path == TEXT_PATH:
        copies = _prompts(fields)
        if "best_of" in fields:
            copies *= max(1, typed_field(fields, "best_of", int, "a whole number") or 1)
    return (tokens if tokens is None else tokens * copies), copies


def _prompts(fields: Fields) -> int:
    """Each text, or each list of token numbers, in `prompt` gets an answer of its own."""
    prompt = fields.get("prompt")
    if prompt is None or not bytes(prompt).startswith(b"["):
        return 1
    given = typed_field(fields, "prompt", list[msgspec.Raw], "a string or a list") or ()
    return max(1, sum(not bytes(each).lstrip()[:1].isdigit() for each in given))


@lru_cache(maxsize=256)
def _is_newer(url: str) -> bool:
    return f".{urlsplit(url).hostname}".endswith(NEWER)
