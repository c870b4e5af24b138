"""An answer that its reader leaves: what of it is there already is read, so that it is known what it will be billed at.

Providers bill what they wrote until they notice that nobody listens. Some of that has arrived, and some is on its way.
"""

import asyncio
from collections.abc import AsyncIterator
from math import ceil
from typing import TypeVar

from terrace.errors import TerraceError

T = TypeVar("T")

READING_SECONDS = 0.1  # at most: reading on makes the provider go on
SILENCE_SECONDS = 0.005  # nothing for this long: what had arrived is read
TRAVEL_SECONDS = 0.1  # until a provider hears that we left


async def arrived(pieces: AsyncIterator[T]) -> AsyncIterator[T]:
    """What is there already, and what comes right behind it. Its end and its failure are one here."""
    clock = asyncio.get_running_loop().time
    until = clock() + READING_SECONDS
    while (left := until - clock()) > 0:
        try:
            async with asyncio.timeout(min(left, SILENCE_SECONDS)):
                piece = await anext(pieces)
        except (StopAsyncIteration, TimeoutError, TerraceError):
            return
        yield piece


def on_its_way(tokens: int, seconds: float) -> int:
    """Tokens written beyond the `tokens` that came in so many seconds: as many as come while our leaving travels."""
    return ceil(tokens * min(1.0, TRAVEL_SECONDS / seconds)) if seconds > 0 else tokens
