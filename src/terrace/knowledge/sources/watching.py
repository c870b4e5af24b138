"""Watched folders: looked through every few seconds, and run when they changed and have come to rest.

Looking is reading names and sizes, which works on every file system and mount, where notifications do not.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, col, select

from terrace.errors import TerraceError
from terrace.knowledge.sources import folder, store
from terrace.knowledge.sources.tables import SourceRow
from terrace.storage import Database
from terrace.types import Scope

log = logging.getLogger(__name__)

EVERY = 5.0  # seconds


class Watcher:
    """`start` puts in a run of a source inside a transaction: `Sources.start`."""

    def __init__(
        self,
        database: Database,
        folders: tuple[Path, ...],
        start: Callable[[Session, Scope, dict[str, str]], str],
        *,
        every: float = EVERY,
    ) -> None:
        self._database = database
        self._folders = folders
        self._start = start
        self._every = every
        self._seen: dict[str, str] = {}  # by source: its state at the last look
        self._told: dict[str, str] = {}  # the state that a run was last begun for
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._folders:
            self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except (TerraceError, DBAPIError) as error:
                log.warning("the watched folders could not be looked at and are tried again: %s", error)
            await asyncio.sleep(self._every)

    async def look(self) -> list[str]:
        """One round over all watched folders; the jobs it began."""
        begun = []
        rows = await self._database.read(_watched)
        for row in rows:
            state = await asyncio.to_thread(_state, row, self._folders)
            rests = state is not None and self._seen.get(row.id) == state
            if state is not None:
                self._seen[row.id] = state
            if rests and state not in (row.fingerprint, self._told.get(row.id)):
                begun.append(await self._database.write(self._start, Scope(row.tenant_id), {"source_id": row.id}))
                self._told[row.id] = str(state)
        for memory in (self._seen, self._told):
            for gone in memory.keys() - {row.id for row in rows}:
                del memory[gone]
        return begun


def _watched(session: Session) -> list[SourceRow]:
    rows = list(session.exec(select(SourceRow).where(SourceRow.kind == "folder", col(SourceRow.watch))))
    for row in rows:
        session.expunge(row)
    return rows


def _state(row: SourceRow, folders: tuple[Path, ...]) -> str | None:
    """Of all its files; None while it can't be looked at, which changes nothing."""
    options = store.options_of(row)
    try:
        root, place = folder.allowed_root(Scope(row.tenant_id), folders, row.location)
        return folder.scan(root, place, options.include, options.exclude).fingerprint
    except (OSError, TerraceError):
        return None
