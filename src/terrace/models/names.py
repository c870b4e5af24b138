"""What a model's name gives away when its provider tells no more."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_EMBEDDING = re.compile(r"embed|minilm|mpnet|(^|[/_-])(bge|e5|gte)([-_:.]|$)", re.IGNORECASE)
_OTHER = re.compile(
    r"whisper|transcribe|(^|[-/])tts|dall-e|image|audio|realtime|moderation|rerank|sora|babbage|davinci|speech|guard",
    re.IGNORECASE,
)


MAX_NAME_CHARS = 200  # no model's name is longer, and comparing long ones takes long


def is_embedding(name: str) -> bool:
    return _EMBEDDING.search(name) is not None


def is_chat(name: str) -> bool:
    """Neither an embedding model nor one for speech, images or moderation."""
    return not is_embedding(name) and _OTHER.search(name) is None


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Names that `name` may have meant, best first: alike as a whole, alike without their provider, or holding it."""
    if len(name) > MAX_NAME_CHARS:
        return []
    known = list(names)
    bare = {each.rpartition("/")[2].lower(): each for each in known}
    wanted = name.lower()
    alike = get_close_matches(wanted, known, count, 0.6)
    alike += [bare[each] for each in get_close_matches(wanted.rpartition("/")[2], bare, count, 0.6)]
    alike += [each for each in known if len(wanted) > 2 and wanted in each.lower()]
    return list(dict.fromkeys(alike))[:count]


def shortened(name: str) -> str:
    """A name as it can be repeated in a sentence."""
    return name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}…"
