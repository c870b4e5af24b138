"""The words of the campaigns room: a contact, its fields, its lists, what was said to it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Role = Literal["user", "assistant"]
"""In a conversation: `user` is the contact, `assistant` whoever wrote to them."""

BUILT_IN = ("key", "name", "email")
"""What every contact has; other fields are as the tenant wants them."""
MAX_NAME = 64  # characters of a field's name

_FIELD = re.compile(r"[^\W\d_]\w*")
_APART = re.compile(r"\W+")


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody to write to. `key` is what makes them one person: an e-mail address, or a chosen column's value."""

    id: str  # ctc_...
    key: str
    name: str
    email: str
    fields: Mapping[str, str]  # none is empty
    list_ids: Sequence[str]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ContactList:
    id: str  # lst_...
    name: str
    contacts: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said in a conversation with a contact."""

    role: Role
    text: str
    at: datetime


def is_field(name: str) -> bool:
    """Whether a template may name it: a letter, then letters, digits and underscores, in lower case."""
    return len(name) <= MAX_NAME and name == name.lower() and _FIELD.fullmatch(name) is not None


def field_name(heading: str) -> str:
    """A column's heading as a field: `First name` is `first_name`. Empty when no letter is in it."""
    words = _APART.sub("_", heading.strip().lower()).strip("_")
    return words[:MAX_NAME].rstrip("_") if _FIELD.fullmatch(words) else _letters_first(words)


def _letters_first(words: str) -> str:
    """`2024_sales` is `field_2024_sales`; of nothing but signs nothing is made."""
    return f"field_{words}"[:MAX_NAME].rstrip("_") if any(each.isalnum() for each in words) else ""
