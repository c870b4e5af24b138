"""A work on its way: handed to a database's thread, its result handed back to the event loop that asked."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlmodel import Session

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Work:
    run: Callable[[Session], Any]
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop
    bulk: bool = False
    result: Any = None
    error: BaseException | None = None
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    handed: bool = False  # to whoever waits

    def fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.callbacks = []

    def resolve(self) -> None:
        for callback in self.callbacks:
            try:
                callback()
            except Exception:
                log.exception("a callback after a commit failed")
        if self.future.done():  # the caller was cancelled; the write stands
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


def hand_over(batch: Sequence[Work]) -> None:
    """Each event loop gets its results in one call, in the order of the commit; those that it has not yet."""
    batch = [work for work in batch if not work.handed]
    for loop in {work.loop for work in batch}:
        call_soon(loop, partial(_resolve, [work for work in batch if work.loop is loop]))
    for work in batch:
        work.handed = True


def _resolve(batch: Sequence[Work]) -> None:
    for work in batch:
        work.resolve()


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is gone, and with it whoever waited
        loop.call_soon_threadsafe(callback)
