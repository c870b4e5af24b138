"""What an answer depends on, as short texts that can be compared."""

import unicodedata
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from terrace.chat.cache.base import Asking
from terrace.types import Scope

_encode = msgspec.json.Encoder(order="deterministic").encode


def normalised(question: str) -> str:
    """Letters as Unicode composes them; blanks don't count where they mean nothing (in one line, at the ends)."""
    text = unicodedata.normalize("NFC", question).strip()
    return "\n".join(line.rstrip() for line in text.splitlines()) if "\n" in text else " ".join(text.split())


def contexts_of(scope: Scope, asking: Asking) -> tuple[str, str | None]:
    """Everything an answer depends on but the question and the documents, as its asker's own and as the tenant's.

    None for the tenant where what was said before, which is its owner's alone, or no document at all is in the answer.
    """
    common = [
        asking.model,
        asking.use_rag,
        sorted({name.casefold() for name in asking.collections}),
        sorted({tag.casefold() for tag in asking.tags}),
        asking.passages,
        [[turn.role, turn.content] for turn in asking.history],
    ]
    private = bool(asking.history) or asking.use_rag is False
    return _digest([*common, "own", scope.user]), None if private else _digest([*common, "shared"])


def key_of(context: str, question: str) -> str:
    return _digest([context, normalised(question)])


def library_of(versions: Sequence[tuple[str, int]]) -> str:
    """The state of some collections."""
    return _digest([[collection, version] for collection, version in versions])


def _digest(value: Any) -> str:
    return sha256(_encode(value)).hexdigest()[:40]
