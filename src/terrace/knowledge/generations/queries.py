"""Remembers a sample of what is searched for, so that generations can be compared by real questions.

A search pays for one entry of a dictionary; what a killed process had not written yet is lost.
"""

import asyncio
import logging

from sqlalchemy.exc import DBAPIError

from terrace.errors import TerraceError
from terrace.knowledge.generations import store
from terrace.storage import Database
from terrace.types import Scope, now

log = logging.getLogger(__name__)

FLUSH_SECONDS = 30.0
MOST = 1000  # in memory; more of them wait for the next turn
MAX_CHARS = 500  # a longer one is a text, not a question


class RecentQueries:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: dict[tuple[str, str], float] = {}
        self._task: asyncio.Task[None] | None = None

    def asked(self, scope: Scope, query: str) -> None:
        if len(query) > MAX_CHARS or len(self._asked) >= MOST:
            return
        self._asked[scope.tenant, query] = now()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._later(), name="recent queries")

    async def flush(self) -> None:
        """Write down what was asked."""
        asked, self._asked = self._asked, {}
        if asked:
            rows = [(tenant, query, at) for (tenant, query), at in asked.items()]
            await self._database.write(store.add_queries, rows)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._flushed()

    async def _later(self) -> None:
        await asyncio.sleep(FLUSH_SECONDS)
        self._task = None
        await self._flushed()

    async def _flushed(self) -> None:
        try:
            await self.flush()
        except (TerraceError, DBAPIError) as error:
            log.warning("what was searched for could not be written down: %s", error)
