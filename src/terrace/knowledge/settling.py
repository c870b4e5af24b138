"""Blobs and the rows that refer to them: which of the two stand when a caller goes away in the middle."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from sqlmodel import Session

from terrace.errors import TerraceError
from terrace.storage import Blobs, Database

R = TypeVar("R")


async def to_the_end(work: Coroutine[Any, Any, R]) -> R:
    """Await a write to its end even when the caller is cancelled meanwhile; then the cancellation goes on.

    A write that has begun stands whether or not anybody waits for it. Who must know if it did waits here.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen; the cancellation is what counts
        raise


@asynccontextmanager
async def kept_if_known(
    database: Database, blobs: Blobs, keys: Collection[str], known: Callable[[Session], Collection[str]]
) -> AsyncGenerator[None, None]:
    """When the block fails, remove those of `keys` that no row refers to: `known` reads those that rows do.

    What can't be removed now (a shutdown, a full disk) is an orphan that housekeeping finds.
    """
    try:
        yield
    except BaseException:
        with suppress(TerraceError):
            await asyncio.shield(_drop(database, blobs, keys, known))
        raise


async def _drop(
    database: Database, blobs: Blobs, keys: Collection[str], known: Callable[[Session], Collection[str]]
) -> None:
    kept = await database.read(known) if keys else ()
    for key in keys:
        if key not in kept:
            await blobs.delete(key)
