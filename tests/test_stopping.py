"""What is ended ends, though a cancellation be lost."""

import asyncio
from contextlib import suppress

from terrace.stopping import ended


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def deaf_once() -> None:
        nonlocal lost
        while True:
            if lost:
                await asyncio.sleep(60)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            lost += 1

    tasks = [asyncio.create_task(deaf_once()), asyncio.create_task(asyncio.sleep(0))]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        await ended(*tasks)
    assert (lost, [task.done() for task in tasks]) == (1, [True, True])
    await ended(*tasks)
