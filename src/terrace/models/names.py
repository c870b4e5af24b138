"""What a model's name gives away when its provider tells no more."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_EMBEDDING = re.compile(r"embed|minilm|mpnet|(^|[/_-])(bge|e5|gte)([-_:.]|$)", re.IGNORECASE)
_OTHER = re.compile(
    r"whisper|transcribe|(^|[-/])tts|dall-e|image|audio|realtime|moderation|rerank|sora|babbage|davinci|speech|guard",
    re.IGNORECASE,
)
_SEES = re.compile(
    r"(^|[/_:.-])(gpt-4o|gpt-4\.[15]|gpt-4-turbo|gpt-5|chatgpt-4o|o1|o3|o4-mini|claude-(3|[4-9]|opus|sonnet|haiku)|gemini|"
    r"gemma-?3|llava|bakllava|pixtral|moondream|minicpm-(v|o)|internvl|llama-?4|mllama|qvq|molmo|cogvlm|smolvlm|idefics|"
    r"paligemma|nanonets|mistral-(small-?3\.[12]|medium-?3))|vision|multimodal|(^|[/_:.-]|\d)vl([-_:.\d]|$)",
    re.IGNORECASE,
)
_BLIND = re.compile(
    r"(^|[/_:-])(gpt-3\.5|gpt-4(-0\d{3}|-32k)?$|o1-(mini|preview)|o3-mini|claude-(2|instant)|gemma-?3n?[:-](270m|1b))",
    re.IGNORECASE,
)

MAX_NAME_CHARS = 200  # no model's name is longer, and comparing long ones takes long


def is_embedding(name: str) -> bool:
    return _EMBEDDING.search(name) is not None


def is_chat(name: str) -> bool:
    """Neither an embedding model nor one for speech, images or moderation."""
    return not is_embedding(name) and _OTHER.search(name) is None


def sees(name: str) -> bool | None:
    """Whether a model reads images, as far as its name tells; None where it doesn't."""
    if _BLIND.search(name):
        return False
    return True if _SEES.search(name) else None


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
