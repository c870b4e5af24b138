"""What goes into one call: as many as are wanted together, and no more than the model's context holds."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from terrace.analysis.prompt import Sheet
from terrace.models.tokens import IMAGE_TOKENS, estimate

T = TypeVar("T")
R = TypeVar("R")


def of_sheets(sheets: Sequence[Sheet], most: int, room: int) -> list[list[Sheet]]:
    """In their order; `room` in tokens."""
    return _grouped(sheets, lambda each: estimate(each.text) + IMAGE_TOKENS * bool(each.picture), most, room)


def of_answers(answers: Sequence[tuple[str, str]], room: int) -> list[list[tuple[str, str]]]:
    """(which pages, answer) in their order."""
    return _grouped(answers, lambda each: estimate(each[1]), len(answers), room)


def _grouped(items: Sequence[T], cost: Callable[[T], int], most: int, room: int) -> list[list[T]]:
    groups: list[list[T]] = []
    size = 0
    for each in items:
        added = cost(each)
        if not groups or len(groups[-1]) == most or size + added > room:
            groups.append([])
            size = 0
        groups[-1].append(each)
        size += added
    return groups


def key(group: Sequence[Sheet]) -> str:
    return f"pages-{group[0].number}-{group[-1].number}"


def where(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{labels[0]} to {labels[-1]}"


async def in_order(work: Sequence[Coroutine[Any, Any, R]], at_once: int) -> list[R]:
    """All of it; when one fails, or this is cancelled, the others are stopped first."""
    free = asyncio.Semaphore(at_once)

    async def one(each: Coroutine[Any, Any, R]) -> R:
        async with free:
            return await each

    tasks = [asyncio.ensure_future(one(each)) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in work:
            each.close()
        raise
