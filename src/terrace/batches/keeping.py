"""Answers become rows as they come, those that come together in one transaction."""

import asyncio

from sqlmodel import Session

from terrace.batches import store
from terrace.batches.store import Record
from terrace.jobs.base import Context


class Keeper:
    """`keep` returns once the answer is durable. What goes wrong ends the run: `check` raises it."""

    def __init__(self, context: Context, batch_id: str, done: int, total: int) -> None:
        self._context = context
        self._batch_id = batch_id
        self._done = done
        self._total = total
        self._waiting: list[tuple[Record, asyncio.Future[None]]] = []
        self._writing = asyncio.Lock()
        self._error: Exception | None = None

    async def keep(self, record: Record) -> None:
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, kept))
        async with self._writing:  # whoever comes in first writes for all who wait
            if not kept.done():
                await self._write()
        kept.result()

    def broke(self, error: Exception) -> None:
        self._error = self._error or error

    def check(self) -> None:
        """Raises the first thing that went wrong."""
        if self._error is not None:
            raise self._error

    async def _write(self) -> None:
        group, self._waiting = self._waiting, []
        records = [record for record, _ in group]

        def work(session: Session) -> None:
            store.keep(session, self._context.scope, self._batch_id, records)

        await self._context.write(work)
        self._done += len(records)
        self._context.progress(self._done, max(self._total, 1))
        for _, kept in group:
            if not kept.done():
                kept.set_result(None)
