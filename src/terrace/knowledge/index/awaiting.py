"""A question's vector may still be on its way when its words are looked for."""

from inspect import isawaitable
from typing import Any


async def at_hand(vector: Any | None) -> Any | None:
    return await vector if isawaitable(vector) else vector


async def nothing() -> None:
    """In the place of what need not be asked."""
