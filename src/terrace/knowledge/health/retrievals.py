"""How often each document is found: counted in memory as searches end, and written down now and then.

A search pays for a few additions to a dictionary. What a killed process had not written yet is lost: the counts say
whether anybody reads a document, not how often to the last one.
"""

import asyncio
import logging
from collections.abc import Iterable

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from terrace.errors import TerraceError
from terrace.storage import Database
from terrace.types import Scope, now

log = logging.getLogger(__name__)

FLUSH_SECONDS = 30.0
MOST = 100_000  # documents held in memory; of more only those held already are counted until the next flush
ADD = text(
    "INSERT INTO document_retrievals (tenant_id, document_id, times, last_at) VALUES (:tenant, :document, :times, :at) "
    "ON CONFLICT (tenant_id, document_id) DO UPDATE SET times = document_retrievals.times + excluded.times, "
    "last_at = excluded.last_at"
)


class Retrievals:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[tuple[str, str], int] = {}
        self._task: asyncio.Task[None] | None = None

    def count(self, scope: Scope, documents: Iterable[str]) -> None:
        """Each of them was found by one search."""
        counts, tenant = self._counts, scope.tenant
        for document in documents:
            key = (tenant, document)
            if key in counts:
                counts[key] += 1
            elif len(counts) < MOST:
                counts[key] = 1
        if counts and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._later(), name="retrievals")

    async def flush(self) -> None:
        """Write down what was counted."""
        counts, self._counts = self._counts, {}
        if counts:
            await self._database.write(_add, counts)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._flushed()

    async def _later(self) -> None:
        await asyncio.sleep(FLUSH_SECONDS)
        self._task = None  # what is counted from here on has a task of its own
        await self._flushed()

    async def _flushed(self) -> None:
        try:
            await self.flush()
        except (TerraceError, DBAPIError) as error:
            log.warning("how often documents were found could not be written down: %s", error)


def _add(session: Session, counts: dict[tuple[str, str], int]) -> None:
    at = now()
    rows = [{"tenant": tenant, "document": each, "times": n, "at": at} for (tenant, each), n in counts.items()]
    session.connection().execute(ADD, rows)
