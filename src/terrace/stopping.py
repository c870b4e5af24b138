"""How what runs beside requests is ended."""

import asyncio
from typing import Any

AGAIN_SECONDS = 0.5


async def ended(*tasks: "asyncio.Task[Any]") -> None:
    """Cancels them until they have ended: on Python 3.11 `asyncio.wait_for`, which clients of ours use, loses a
    cancellation that comes at the very moment of its result, and a loop that heard of none goes on for ever."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
