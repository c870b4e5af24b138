"""Text from outside, fit to be kept: PostgreSQL keeps no NUL, and UTF-8 no halves of surrogate pairs."""

from typing import Any


def kept(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "")


def kept_in(value: Any) -> Any:
    """The same, of every text in a JSON value."""
    if isinstance(value, str):
        return kept(value)
    if isinstance(value, dict):
        return {kept(str(name)): kept_in(each) for name, each in value.items()}
    if isinstance(value, list):
        return [kept_in(each) for each in value]
    return value
