"""Names people give: of files, collections and tags. Shown as text, never used as paths."""

import re
import unicodedata
from collections.abc import Iterable

from terrace.errors import Invalid

MAX_NAME = 255
MAX_COLLECTION = 100
MAX_TAG = 64
MAX_TAGS = 100

# Controls, and what makes text read in another order than it is written (`exe.fdp` shown as `pdf.exe`).
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def tidy(text: str) -> str:
    """One line of NFC text without controls or bidi overrides."""
    return " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", text)).split())


def file_name(given: str, *, unnamed: str = "unnamed") -> str:
    """The last part of a path, cleaned for display; its extension survives shortening.

    Where nothing is left it is `unnamed`; Invalid is raised without that.

    >>> file_name("../../etc/passwd")
    'passwd'
    """
    name = tidy(re.split(r"[/\\]", given.strip().rstrip("/\\"))[-1])
    if not name.strip("."):
        if not unnamed:
            raise Invalid("A document needs a name with something to read in it.", code="document_name")
        return unnamed
    if len(name) <= MAX_NAME:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > 16:
        return name[:MAX_NAME]
    return stem[: MAX_NAME - len(suffix) - 1] + "." + suffix


def collection_name(given: str) -> str:
    """Raises Invalid when nothing is left of it or it is too long."""
    name = tidy(given)
    if not name:
        raise Invalid("A collection needs a name.", code="collection_name")
    if len(name) > MAX_COLLECTION:
        raise Invalid(f"A collection's name has at most {MAX_COLLECTION} characters.", code="collection_name")
    return name


def tag_names(given: Iterable[str]) -> tuple[str, ...]:
    """Lower case, in order, each once; commas separate. Raises Invalid for too long or too many."""
    tags = dict.fromkeys(tidy(part).casefold() for entry in given for part in entry.split(","))
    tags.pop("", None)
    if len(tags) > MAX_TAGS:
        raise Invalid(f"A document has at most {MAX_TAGS} tags.", code="too_many_tags")
    if any(len(tag) > MAX_TAG for tag in tags):
        raise Invalid(f"A tag has at most {MAX_TAG} characters.", code="tag_too_long")
    return tuple(tags)


def key(name: str) -> str:
    """What names are compared by: neither case counts nor what is not kept of them."""
    return tidy(name).casefold()
